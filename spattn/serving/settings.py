"""Which pattern each layer of a model has, as an engine finds it: in the model's config, or in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from spattn.attend import Attention, compile
from spattn.errors import ArgumentError, UnsupportedError
from spattn.expressions.nodes import FALSE
from spattn.pattern import Pattern
from spattn.scores.parser import names_of

VARIABLE = "SPATTN_PATTERN"
NAMES = "pattern", "bind", "layers", "backend"
EXAMPLE = '{"pattern": "causal & last(w)", "bind": {"w": 1024}, "layers": {"0": "causal"}}'


@dataclass(frozen=True)
class Settings:
    """Patterns of a model.

    Attributes:
        pattern: Of all layers that have none of their own.
        layers: (number, pattern) of those that do, from 0, or from -1 backwards.
        bindings: (name, integer) for names in the patterns.
        backend: "auto", or a backend's name.
    """

    pattern: str
    layers: tuple[tuple[int, str], ...] = ()
    bindings: tuple[tuple[str, int], ...] = ()
    backend: str = "auto"

    @classmethod
    def of(cls, config: Any) -> Settings | None:
        """Of a model whose config has `spattn`: a pattern, or its parts by name. None where nothing says a pattern.

        SPATTN_PATTERN stands before it: the pattern of all layers.

        Raises:
            ArgumentError: E060, `config.spattn` is neither.
        """
        text = os.environ.get(VARIABLE)
        given = text or getattr(config, "spattn", None)
        if given is None or isinstance(given, cls):
            return given
        if isinstance(given, str):
            return cls(given)
        if not isinstance(given, Mapping) or not isinstance(given.get("pattern"), str) or set(given) - set(NAMES):
            message = f"config.spattn is {given!r}; it is a pattern, or {', '.join(NAMES)} by name"
            raise ArgumentError("E060", message, hint=f"spattn={EXAMPLE}")
        layers = {_number(name): str(one) for name, one in given.get("layers", {}).items()}
        return cls(
            given["pattern"],
            tuple(sorted(layers.items())),
            tuple(sorted(given.get("bind", {}).items())),
            given.get("backend", "auto"),
        )

    def attention(self, layer: int, num_layers: int, score: str | None = None) -> Attention:
        """What a layer computes; the same object whenever it is asked for.

        Args:
            layer: Which, from 0.
            num_layers: How many there are.
            score: What becomes of its scores, as `compile` takes it.

        Raises:
            PatternError: A text is no pattern.
            UnsupportedError: E061, the pattern reads tensors, which no engine gives.
        """
        return _attention(self, layer, num_layers, score)


@lru_cache(maxsize=1024)
def _attention(settings: Settings, layer: int, num_layers: int, score: str | None) -> Attention:
    own = dict(settings.layers)
    text = own.get(layer, own.get(layer - num_layers, settings.pattern))
    names = names_of(text)
    bindings: dict[str, Any] = {name: value for name, value in settings.bindings if name in names}
    attention = compile(text, backend=settings.backend, layer=layer, score=score, **bindings)
    read = sorted(attention.pattern.free_names)
    if read:
        hint = f'config.spattn = {{"pattern": .., "bind": {{"{read[0]}": 1024}}}} binds an integer'
        raise UnsupportedError("E061", f"{text} reads {read[0]}, and an engine gives no tensors", hint=hint)
    return attention


def cache_window(pattern: str | Pattern, **heads: int) -> int | None:
    """The sliding window of a cache that may drop older keys; None where a key is kept for ever, or none is old enough.

    A query and the keys before it, as engines count: of `causal & last(1024)` it is 1024.

    Args:
        pattern: What is computed over the cache.
        heads: As `Pattern.live` takes them.

    Raises:
        NotDecodableError: E062, a decode step cannot compute the pattern.
    """
    live = Pattern.of(pattern).live(**heads)
    return live.reach + 1 if live.kept == FALSE and live.reach is not None else None


def check_window(pattern: str | Pattern, window: int | None, **heads: int) -> None:
    """Refuses a pattern that decode steps cannot compute, or not over a cache with a sliding window.

    Args:
        pattern: What is computed over the cache.
        window: The last keys that the cache holds for a query, its own among them; None for all.
        heads: As `Pattern.live` takes them.

    Raises:
        NotDecodableError: E062, a decode step cannot compute the pattern.
        UnsupportedError: E061, the cache drops keys that the pattern needs.
    """
    needed = cache_window(pattern, **heads)
    if window is None or (needed is not None and needed <= window):
        return
    wants = "keeps keys for ever" if needed is None else f"needs the last {needed}"
    raise UnsupportedError(
        "E061",
        f"the model's cache holds the last {window} keys of a layer, and {pattern} {wants}",
        hint="set sliding_window and layer_types of the model's config to what the pattern needs",
    )


def _number(name: Any) -> int:
    try:
        return int(name)
    except (TypeError, ValueError) as error:
        raise ArgumentError("E060", f"config.spattn names layer {name!r}, which is no number") from error
