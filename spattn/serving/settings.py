"""Which pattern each layer of a model has, as an engine finds it: in the model's config, or in the environment."""

from __future__ import annotations

import os
from typing import Any

from spattn.attend import Attention
from spattn.config.schema import AttentionConfig
from spattn.errors import ConfigError, UnsupportedError
from spattn.expressions.nodes import FALSE
from spattn.pattern import Pattern

VARIABLE = "SPATTN_PATTERN"


def config_of(model: Any) -> AttentionConfig | None:
    """Patterns of a model whose config has `spattn`; None where nothing says a pattern.

    SPATTN_PATTERN stands before it: the pattern of all layers.

    Args:
        model: Its config.

    Raises:
        ConfigError: `config.spattn` is no config of attention.
    """
    given = os.environ.get(VARIABLE) or getattr(model, "spattn", None)
    if given is None:
        return None
    try:
        return AttentionConfig.of(given)
    except ConfigError as error:
        error.message = f"config.spattn: {error.message}"
        raise


def attention_of(config: AttentionConfig, layer: int, num_layers: int, score: str | None = None) -> Attention:
    """What a layer computes in an engine; the same object for all layers that compute the same.

    Args:
        config: Of the model.
        layer: Which, from 0.
        num_layers: How many there are.
        score: What the model does to its scores, as `compile` takes it.

    Raises:
        PatternError: A text is no pattern.
        ConfigError: The config names layers that are not there.
        UnsupportedError: E061, the pattern reads tensors, which no engine gives, or the config has a score.
    """
    if config.score is not None:
        message = f"config.spattn has the score {config.score}, and scores in an engine are the model's own"
        raise UnsupportedError("E061", message, hint="leave the score out; the model's soft cap and slopes are applied")
    attention = config.of_layers(num_layers).attention(layer, score)
    read = sorted(attention.pattern.free_names)
    if read:
        hint = f'config.spattn = {{"pattern": .., "bind": {{"{read[0]}": 1024}}}} binds an integer'
        raise UnsupportedError(
            "E061", f"{attention.pattern} reads {read[0]}, and an engine gives no tensors", hint=hint
        )
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


CURE = "set sliding_window and layer_types of the model's config to what the pattern needs"


def check_window(pattern: str | Pattern, window: int | None, *, cure: str = CURE, **heads: int) -> None:
    """Refuses a pattern that decode steps cannot compute, or not over a cache with a sliding window.

    Args:
        pattern: What is computed over the cache.
        window: The last keys that the cache holds for a query, its own among them; None for all.
        cure: What to do where the cache drops keys that the pattern needs.
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
        hint=cure,
    )
