"""Which layers a key of `layers` names: a number, or a range as Python's slices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from spattn.config.errors import wrong

_BOUND = r"(-?[0-9]{1,9})?"
_RANGE = re.compile(rf"{_BOUND}:{_BOUND}(?::([1-9][0-9]{{0,8}})?)?")
_NUMBER = re.compile(r"-?[0-9]{1,9}")
HINT = 'a layer is a number from 0, or from -1 backwards, or a range such as "0:4" or "::2"'


def selector(key: Any) -> str:
    """The canonical text of a key.

    Raises:
        ConfigError: E070, it is none.
    """
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    text = key.replace(" ", "") if isinstance(key, str) else ""
    if _NUMBER.fullmatch(text):
        return str(int(text))
    if text and _RANGE.fullmatch(text):
        return text
    raise wrong(("layers", str(key)), f"layers names {key!r}, which is no layer", HINT)


def by_layer(selectors: Iterable[str], num_layers: int) -> dict[int, str]:
    """layer -> the selector that names it; a number stands before a range.

    Raises:
        ConfigError: E072, a selector names no layer of so many, or two of a kind name the same.
    """
    found: dict[int, str] = {}
    for one in sorted(selectors, key=_is_number):
        for layer in _named(one, num_layers):
            if layer in found and _is_number(found[layer]) == _is_number(one):
                message = f"layers {found[layer]!r} and {one!r} both name layer {layer}"
                raise wrong(("layers", one), message, "one of them is enough", "E072")
            found[layer] = one
    return found


def _is_number(text: str) -> bool:
    return ":" not in text


def _named(text: str, num_layers: int) -> Iterable[int]:
    if _is_number(text):
        if -num_layers <= int(text) < num_layers:
            return (int(text) % num_layers,)
    else:
        parts = [int(part) if part else None for part in text.split(":")]
        layers = range(num_layers)[slice(*parts)]
        if layers and all(abs(bound) <= num_layers for bound in parts[:2] if bound is not None):
            return layers
    message = f"layers names {text!r}, and the model has layers 0 .. {num_layers - 1}"
    raise wrong(("layers", text), message, HINT, "E072")
