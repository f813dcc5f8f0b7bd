"""Continuous batching of transformers: a pattern in the place of its paged eager attention.

`generate_batch` takes few names of attention. "paged|eager" is the one whose function may be anything: `apply`
registers there a function that serves the models that have a pattern and hands all others to the one before.

transformers writes keys and values to its pages, and gives those of all requests one behind the other: a call of
packed rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from spattn.errors import ArgumentError, MissingDependencyError, UnsupportedError
from spattn.pattern import Pattern
from spattn.serving.settings import attention_of, check_window, config_of

NAME = "paged|eager"
REFUSED = {
    "position_bias": "a bias that the model computes",
    "head_mask": "a factor of each head's weights",
    "indices": "keys that the model chooses",
    "block_indices": "blocks of keys that the model chooses",
    "output_attentions": "attention weights",
}
"""Arguments of attention functions that are refused, and what they stand for."""


def apply(model: Any, pattern: str | None = None, **options: Any) -> None:
    """Gives a model a pattern, in the place of its own mask, for `generate_batch` and its managers.

    The pattern is written to `model.config.spattn`, of a multimodal model to that of its text model, and saved with it.

    Args:
        model: Of transformers.
        pattern: Of all layers; what the config has already if not given.
        options: `bind`, `layers` and whatever else `spattn.config` knows.

    Raises:
        MissingDependencyError: transformers is not installed.
        PatternError: A text is no pattern.
        ArgumentError: E060, options do not fit, or no pattern is given.
        UnsupportedError: E061, the model takes no attention functions, or drops keys that the pattern needs.
        NotDecodableError: E062, decode steps cannot compute the pattern.
    """
    config = model.config.get_text_config()
    if pattern is not None:
        write(config, pattern, **options)
    own = config_of(config)
    if own is None:
        raise ArgumentError("E060", "the model has no pattern", hint='hf.apply(model, "causal & last(1024)")')
    check_model(model)
    num_heads, num_kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    for layer in range(config.num_hidden_layers):
        read = attention_of(own, layer, config.num_hidden_layers).pattern
        check_window(read, window_of(config, layer), num_heads=num_heads, num_kv_heads=num_kv_heads or num_heads)
    _register()
    model.set_attn_implementation(NAME)


def write(config: Any, pattern: str | Pattern, **options: Any) -> None:
    """Writes a pattern and its options to `config.spattn`, of the form that `config_of` reads and JSON holds."""
    config.spattn = {"pattern": str(pattern), **options} if options else str(pattern)


def check_model(model: Any) -> None:
    """Refuses a model of a class that never asks which attention function is set.

    Raises:
        UnsupportedError: E061.
    """
    if not model._can_set_attn_implementation():
        raise UnsupportedError("E061", f"{type(model).__name__} takes no attention functions of others")


def window_of(config: Any, layer: int) -> int | None:
    """The sliding window of a layer's cache; None where it holds all keys."""
    types = getattr(config, "layer_types", None)
    kind = "sliding_attention" if types is None else types[layer]
    names = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    window: int | None = getattr(config, names.get(kind, ""), None)
    return window


class PagedAttention:
    """The function that is registered.

    Args:
        other: What serves models without a pattern.
    """

    def __init__(self, other: Callable[..., Any]) -> None:
        self.other = other

    def __call__(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        **given: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of the new rows of all requests.

        Args:
            module: The layer.
            query: `[1, num_q_heads, tokens, head_dim]`, the rows of all requests.
            key: `[1, num_kv_heads, keys, head_dim]`, the keys of all requests, those of the rows last.
            value: The same of values.
            attention_mask: The model's own; the pattern stands in its place.
            scaling: Factor of the scores.
            given: Where the requests end, and what else the model gives.

        Returns:
            `[1, tokens, num_q_heads, head_dim]`, and no weights.

        Raises:
            UnsupportedError: E061, the model asks for what is not served, or this is no continuous batching.
        """
        own = config_of(module.config)
        if own is None:
            return self.other(module, query, key, value, attention_mask, scaling=scaling, **given)  # type: ignore[no-any-return]
        _refuse(given)
        attention = attention_of(own, module.layer_idx, module.config.num_hidden_layers, score_of(given))
        ends, key_ends = given["cu_seq_lens_q"], given["cu_seq_lens_k"]
        positions: dict[str, Any] = {}
        if window_of(module.config, module.layer_idx) is not None:
            positions["k_offset"] = _first_keys(given["position_ids"][0], ends, key_ends)
        out: Tensor = attention(
            *(x[0].transpose(0, 1) for x in (query, key, value)),
            cu_seqlens_q=ends,
            cu_seqlens_k=key_ends,
            max_seqlen_q=given["max_length_q"],
            scale=scaling,
            sinks=sinks_of(module, given),
            **positions,
        )
        return out.unsqueeze(0).contiguous(), None


def _first_keys(position_ids: Tensor, ends: Tensor, key_ends: Tensor) -> Tensor:
    """The position of the first key of each request: its last row stands at its last key.

    Args:
        position_ids: `[tokens]`.
        ends: `[requests + 1]`, of rows.
        key_ends: The same of keys.
    """
    last = position_ids[(ends[1:] - 1).clamp(min=0)]
    return last + 1 - (key_ends[1:] - key_ends[:-1])


def score_of(given: Mapping[str, Any]) -> str | None:
    """What becomes of a model's scores, as `compile` takes it: its soft cap, if it has one."""
    softcap = given.get("softcap")
    return None if softcap is None else f"softcap({float(softcap)})"


def sinks_of(module: Any, given: Mapping[str, Any]) -> Tensor | None:
    """The learnt sinks of a layer's heads, if it has any: given, or a parameter of the layer."""
    names = [name for name in ("s_aux", "sinks") if given.get(name) is not None]
    sinks: Tensor | None = given[names[0]] if names else getattr(module, "sinks", None)
    return sinks


def refuse_arguments(given: Mapping[str, Any]) -> None:
    """Refuses arguments of an attention function that change its answer in ways that no pattern has.

    Raises:
        UnsupportedError: E061.
    """
    for name, meaning in REFUSED.items():
        if given.get(name) is not None and given[name] is not False:
            raise UnsupportedError("E061", f"{name} is given: {meaning}, which no pattern has")


def _refuse(given: dict[str, Any]) -> None:
    refuse_arguments(given)
    if given.get("dropout"):
        raise UnsupportedError("E061", "dropout is not served", hint="model.eval()")
    if not isinstance(given.get("cu_seq_lens_k"), Tensor):
        hint = "model.generate_batch(..), or model.set_attn_implementation of another name"
        raise UnsupportedError("E061", "spattn.serving.hf serves continuous batching alone", hint=hint)


def _register() -> None:
    try:
        from transformers import AttentionInterface
    except ImportError as error:
        message = f"continuous batching is transformers' own: {error}"
        raise MissingDependencyError("E050", message, hint="pip install 'spattn[hf]'") from error
    functions = AttentionInterface()  # type: ignore[no-untyped-call]
    if not isinstance(functions[NAME], PagedAttention):
        AttentionInterface.register(NAME, PagedAttention(functions[NAME]))
