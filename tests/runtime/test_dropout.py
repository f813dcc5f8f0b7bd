"""Dropout is refused by its name, wherever attention could be given it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import spattn
from tests.runtime.calls import drawn

WAYS: dict[str, Callable[..., Any]] = {
    "compile": lambda **given: spattn.compile("last(6)", **given),
    "a call": lambda **given: spattn.compile("last(6)")(*drawn(), **given),
    "attention": lambda **given: spattn.attention(*drawn(), "last(6)", **given),
    "a module": lambda **given: spattn.nn.SparseAttention("last(6)", **given),
    "a module's call": lambda **given: spattn.nn.SparseAttention("last(6)")(*drawn(), **given),
}


@pytest.mark.parametrize("name", ["dropout", "dropout_p"])
@pytest.mark.parametrize("way", WAYS)
def test_dropout_is_refused(way: str, name: str) -> None:
    for much in (0.1, 0, True):
        with pytest.raises(
            spattn.UnsupportedError, match=rf"(?s)E061: exact attention has no {name}:.*leave out {name}="
        ):
            WAYS[way](**{name: much})
