"""Whole models: a pattern given to a loaded one, and a table of what each of its layers runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from spattn.errors import UnsupportedError
from spattn.hf.call import layer_attention, mask_of, needed_window
from spattn.hf.interfaces import NAME, observed
from spattn.hf.mask import Mask
from spattn.pattern import Pattern
from spattn.serving.hf import check_model, score_of, sinks_of, window_of, write

TOKENS = 8
"""Of the forward pass in which layers are watched."""


@dataclass(frozen=True)
class Row:
    """What one layer runs.

    Attributes:
        layer: Its number, from 0.
        pattern: Which pairs it computes.
        share: How many of all pairs these are, 0 to 1.
        score: The model's soft cap and sinks, if it has them.
        cache: Which keys `generate` keeps.
        remark: What will be refused, and what cures it.
    """

    layer: int
    pattern: str
    share: float
    score: str
    cache: str
    remark: str


class Table(tuple[Row, ...]):
    """Rows of layers; `print` it."""

    __slots__ = ()

    def __str__(self) -> str:
        titles = ("layer", "pattern", "share of pairs", "scores", "cache", "")
        cells = [titles, *(tuple(f"{x:.2%}" if isinstance(x, float) else str(x) for x in astuple(row)) for row in self)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(titles))]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def apply(
    model: Any,
    pattern: str | Pattern,
    *,
    layers: Mapping[int | str, str | Pattern] | None = None,
    bind: Mapping[str, int] | None = None,
    backend: str = "auto",
) -> Any:
    """Gives a loaded model a pattern, in the place of its own mask, and sees that its layers run it.

    The pattern is written to `config.spattn`, of a multimodal model to that of its text model, and saved with it. Who
    loads it says `attn_implementation="spattn"` again: transformers does not save that.

    Args:
        model: Of transformers.
        pattern: Of all layers that have none of their own.
        layers: Patterns of layers by number, from 0, or from -1 backwards, or by range: "0:4".
        bind: Integers for names in the patterns.
        backend: "auto", or a backend's name.

    Returns:
        The model.

    Raises:
        PatternError: A text is no pattern.
        ConfigError: Options do not fit.
        UnsupportedError: E061, the model never asks for attention functions, or its layers want what is not served.
        NotDecodableError: E062, the model is causal, and decode steps cannot compute the pattern.
    """
    check_model(model)
    config = model.config.get_text_config()
    before = getattr(config, "spattn", None), model.config._attn_implementation
    own = {str(layer): str(one) for layer, one in (layers or {}).items()}
    options = {"bind": dict(bind or {}), "layers": own, "backend": backend if backend != "auto" else None}
    write(config, pattern, **{name: value for name, value in options.items() if value})
    try:
        model.set_attn_implementation(NAME)
        _watched(model, TOKENS)
    except Exception:  # the model is left as it was
        if before[0] is None:
            del config.spattn
        else:
            config.spattn = before[0]
        model.set_attn_implementation(before[1])
        raise
    return model


def table(model: Any, length: int) -> Table:
    """What each layer runs, found by a forward pass of a few tokens.

    Args:
        model: Of transformers, of text, with attn_implementation="spattn".
        length: Tokens for which pairs are counted.

    Raises:
        UnsupportedError: E061, no layer runs spattn.
    """
    return _watched(model, length)


def _watched(model: Any, length: int) -> Table:
    rows: dict[int, Row] = {}

    def observe(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *_: Any, **given: Any
    ) -> None:
        mask = mask_of(module, query, key, attention_mask, given)
        if isinstance(mask, Mask):
            row = _row(module, query, key, mask, given, length)
            rows.setdefault(row.layer, row)

    name = model.main_input_name
    if name != "input_ids":
        raise UnsupportedError("E061", f"{type(model).__name__} takes {name}; models of text are served here")
    was_training = model.training
    model.eval()
    try:
        with observed(observe), torch.no_grad():
            model(input_ids=torch.zeros(1, TOKENS, dtype=torch.long, device=model.device))
    finally:
        model.train(was_training)
    if not rows:
        chosen = model.config._attn_implementation
        message = f"no layer of {type(model).__name__} runs spattn; its attention is {chosen!r}"
        raise UnsupportedError("E061", message, hint='attn_implementation="spattn"')
    return Table(rows[layer] for layer in sorted(rows))


def _row(module: Any, query: Tensor, key: Tensor, mask: Mask, given: Mapping[str, Any], length: int) -> Row:
    attention = layer_attention(module, query, key, mask, given)
    heads, layer = query.shape[1], getattr(module, "layer_idx", None)
    score = [score_of(given) or "", "sinks" if sinks_of(module, given) is not None else ""]
    cache = remark = ""
    if mask.is_causal:
        window = window_of(module.config, layer or 0)
        needed = needed_window(attention, heads, key.shape[1])
        cache = "all keys" if window is None else f"the last {window}"
        if window is not None and (needed is None or needed > window):
            remark = f"refused past {window} tokens of generate, whose cache drops keys that are needed"
    share = attention.pattern.density(length, length, num_heads=heads)
    return Row(layer or 0, str(attention.pattern), share, ", ".join(filter(None, score)), cache, remark)
