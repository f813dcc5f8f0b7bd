"""The registries of transformers: functions of attention and of masks, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from spattn.errors import MissingDependencyError
from spattn.hf.call import attend
from spattn.hf.mask import make

NAME = "spattn"


def register() -> None:
    """Registers "spattn"; again changes nothing.

    Raises:
        MissingDependencyError: E050, transformers is not installed.
    """
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
    except ImportError as error:
        message = f"spattn.hf serves models of transformers: {error}"
        raise MissingDependencyError("E050", message, hint="pip install 'spattn[hf]'") from error
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, make)


@contextmanager
def observed(observer: Callable[..., Any]) -> Iterator[None]:
    """While it lasts, `observer` is given the arguments of each layer's call, before the call."""
    from transformers import AttentionInterface

    def first_observed(*arguments: Any, **given: Any) -> Any:
        observer(*arguments, **given)
        return attend(*arguments, **given)

    AttentionInterface.register(NAME, first_observed)
    try:
        yield
    finally:
        AttentionInterface.register(NAME, attend)
