"""From what a config holds to the attributes of an `AttentionConfig`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from reprlib import repr as short
from typing import Any

from spattn.config.errors import wrong
from spattn.config.layers import by_layer, selector
from spattn.config.plain import plain, section
from spattn.config.traps import text_at
from spattn.errors import ConfigError
from spattn.frontend.context import suggestion
from spattn.pattern import Pattern
from spattn.scores.parser import names_of

SCHEMA = 1
"""Of `AttentionConfig.to_dict`; the key `spattn` may say it."""
NAMES = "pattern", "layers", "bind", "score", "backend", "tf32", "num_layers"
EXAMPLE = '{"pattern": "causal & last(w)", "bind": {"w": 1024}, "layers": {"0": "causal"}}'
SHAPES = {"layers": '{"0": "causal", "4:8": "full"}', "bind": '{"w": 1024}'}
"""What keys that hold mappings look like."""


def parts(value: Any, num_layers: int | None = None) -> dict[str, Any]:
    """Attributes by name.

    Args:
        value: As `AttentionConfig.of` takes it.
        num_layers: Layers of the model, if that is known.

    Raises:
        ConfigError: As `AttentionConfig.of`; its path begins where `value` does.
    """
    if isinstance(value, str | Pattern):
        return {"pattern": str(value), "num_layers": num_layers}
    above, found, beside = section(value)
    try:
        own: dict[str, Any] = {"pattern": found} if isinstance(found, str) else _attributes(found)
        total = own["num_layers"] = _total(own.get("num_layers"), beside, num_layers)
        if total is not None:
            by_layer((one for one, _ in own.get("layers", ())), total)
    except ConfigError as error:
        error.path = (*above, *error.path)
        raise
    return own


def names_in(pattern: str) -> frozenset[str]:
    """Whatever stands in a pattern's text as a name; words of the language too."""
    return frozenset(re.findall(r"[^\W\d]\w*", pattern))


def _attributes(data: Any) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise wrong((), f"a config is a {type(data).__name__}, and a pattern or names are needed", EXAMPLE)
    _refuse_unknown(data)
    if "pattern" not in data:
        raise wrong((), "the config has no pattern", f"it looks like {EXAMPLE}")
    pattern = text_at(("pattern",), data["pattern"])
    layers = _layers(_mapping(data, "layers"))
    bind = {name: _number(name, number) for name, number in _mapping(data, "bind").items()}
    score = None if data.get("score") is None else text_at(("score",), data["score"])
    _refuse_unused(bind, names_of(score).union(*map(names_in, (pattern, *layers.values()))))
    num_layers = data.get("num_layers")
    if num_layers is not None and (isinstance(num_layers, bool) or not isinstance(num_layers, int) or num_layers < 1):
        raise wrong(("num_layers",), f"num_layers is {short(num_layers)}; it is how many layers there are")
    return {
        "pattern": pattern,
        "layers": tuple(sorted(layers.items())),
        "bind": tuple(sorted(bind.items())),
        "score": score,
        "backend": _kind(data, "backend", str, "auto", "a backend's name"),
        "tf32": _kind(data, "tf32", bool, False, "true or false"),
        "num_layers": num_layers,
    }


def _refuse_unknown(data: Mapping[Any, Any]) -> None:
    if data.get("spattn", SCHEMA) != SCHEMA:
        message = f"the config is of version {short(data['spattn'])}, and {SCHEMA} is what is read"
        raise wrong(("spattn",), message)
    for key in data:
        if key not in (*NAMES, "spattn"):
            near = suggestion(key, NAMES) if isinstance(key, str) else ""
            raise wrong((str(key),), f"there is no key {key!r}", near or f"keys are {', '.join(NAMES)}")


def _layers(data: Mapping[Any, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, text in data.items():
        one = selector(key)
        if one in found:
            raise wrong(("layers", str(key)), f"layers names {one} twice", code="E072")
        found[one] = text_at(("layers", str(key)), text)
    return found


def _refuse_unused(bind: Mapping[str, float], known: frozenset[str]) -> None:
    for name in bind:
        if name not in known:
            hint = suggestion(name, tuple(sorted(known)))
            raise wrong(("bind", name), f"{name!r} is bound, and stands in no pattern and no score", hint)


def _mapping(data: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    found = plain(data.get(key))
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise wrong((key,), f"{key} is a {type(found).__name__}, and names are needed", f"{key}: {SHAPES[key]}")
    return found


def _number(name: Any, value: Any) -> float:
    if not isinstance(name, str) or not name.isidentifier():
        raise wrong(("bind", str(name)), f"bind has {name!r}, which is no name", "YAML reads on, off, yes, no as truth")
    if isinstance(value, bool) or not (isinstance(value, int) or isinstance(value, float) and isfinite(value)):
        hint = "a number stands without quotes" if isinstance(value, str) else ""
        raise wrong(("bind", name), f"{name} is bound to {short(value)}, which is no number", hint)
    return value


def _kind(data: Mapping[Any, Any], key: str, kind: type, default: Any, wanted: str) -> Any:
    value = default if data.get(key) is None else data[key]
    if not isinstance(value, kind):
        raise wrong((key,), f"{key} is {short(value)}; it is {wanted}")
    return value


def _total(*given: int | None) -> int | None:
    known = sorted({one for one in given if one is not None})
    if len(known) > 1:
        message = f"the model has {known[0]} layers, and {known[1]}"
        raise wrong(("num_layers",), message, "num_layers may be left out", "E072")
    return known[0] if known else None
