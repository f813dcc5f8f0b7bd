"""Containers of other libraries as mappings; none of these is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """A mapping for whatever has named parts; anything else as it is.

    OmegaConf's and Hydra's containers are mappings, pydantic's models have `model_dump`, configs of transformers and
    patterns have `to_dict`.
    """
    if isinstance(value, str | Mapping | type):
        return value
    for name in ("model_dump", "to_dict"):
        if callable(method := getattr(value, name, None)):
            return method()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def section(value: Any) -> tuple[tuple[str, ...], Any, int | None]:
    """The part of a config that is about attention: its path, itself, and the number of layers beside it.

    A model's config has it under `spattn`; the number of that name in what `to_dict` wrote is a version.
    """
    found = plain(value)
    if isinstance(found, Mapping) and "spattn" in found and not isinstance(found["spattn"], int):
        layers = found.get("num_hidden_layers")
        return ("spattn",), plain(found["spattn"]), layers if isinstance(layers, int) else None
    return (), found, None
