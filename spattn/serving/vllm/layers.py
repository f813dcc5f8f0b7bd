"""A layer as vLLM makes it, and the decoders that compute it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from spattn.config.schema import AttentionConfig
from spattn.errors import ArgumentError, UnsupportedError
from spattn.serving.decoder import Decoder
from spattn.serving.paged import Paged
from spattn.serving.settings import attention_of, check_window
from spattn.serving.vllm.blocks import halves, stored_dtype
from spattn.serving.vllm.step import StepMetadata

DECODER = "decoder"


@dataclass(frozen=True)
class Limits:
    """What a step may have, as vLLM's configuration says.

    Attributes:
        max_batch: Requests.
        max_kv_len: Tokens of a request.
        max_new: New tokens of a request where there are prompts among them.
        max_decode: New tokens of a request in a step without prompts: one, and those of speculation.
        num_layers: Layers of the model.
        dtype: Of q and out.
        device: Where all tensors are.
    """

    max_batch: int
    max_kv_len: int
    max_new: int
    max_decode: int
    num_layers: int
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Decoders:
    """Of one layer.

    Attributes:
        steps: Of steps without prompts.
        prompts: Of all others.
    """

    steps: Decoder
    prompts: Decoder

    def serving(self, max_query_len: int) -> Decoder:
        """The one for a step none of whose requests has more new tokens."""
        return self.steps if max_query_len <= self.steps.max_new else self.prompts


@dataclass(frozen=True, eq=False)
class Layer:
    """What vLLM tells of a layer.

    Attributes:
        num_q_heads, num_kv_heads: Heads, those of this process.
        head_dim: Width of a head.
        scale: Factor of the scores.
        cache_dtype: Of the cache, by vLLM's name.
        window: Sliding window of the cache, if it has one.
        slopes: Of ALiBi, float32 `[num_q_heads]`.
        softcap: Of the scores; None or 0 for none.
        sinks: `[num_q_heads]`, a logit without a value.
        kind: vLLM's type of attention.
        shared: The layer whose cache this one reads.

    Raises:
        UnsupportedError: E061, this is not served; the message says what.
    """

    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    cache_dtype: str = "auto"
    window: int | None = None
    slopes: Tensor | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    kind: str = DECODER
    shared: str | None = None

    def __post_init__(self) -> None:
        if self.kind != DECODER:
            raise UnsupportedError("E061", f"attention of type {self.kind} has no pattern here, only that of decoders")
        if self.shared is not None:
            raise UnsupportedError("E061", f"the layer reads the cache of {self.shared}, which another pattern filled")
        if self.sinks is not None and tuple(self.sinks.shape) != (self.num_q_heads,):
            message = f"sinks has shape {list(self.sinks.shape)}; it is a logit a query head, [{self.num_q_heads}]"
            raise ArgumentError("E060", message)
        stored_dtype(self.cache_dtype)

    @cached_property
    def score(self) -> str | None:
        """What becomes of the scores: the soft cap, and then the slopes."""
        words = [f"softcap({float(self.softcap)})"] if self.softcap else []
        words += ["alibi(slopes)"] if self.slopes is not None else []
        return " + ".join(words) or None

    def decoders(self, config: AttentionConfig, index: int, limits: Limits) -> Decoders:
        """What computes the layer.

        Args:
            config: Patterns of the model.
            index: Which layer it is.
            limits: What a step may have.

        Raises:
            NotDecodableError: E062, decode steps cannot compute the pattern.
            UnsupportedError: E061, the cache drops keys that the pattern needs, or the decoder cannot serve it.
        """
        if config.backend == "auto" and limits.device.type != "cpu":
            config = replace(config, backend="triton")  # graphs hold kernels alone: the torch backend reads lengths
        attention = attention_of(config, index, limits.num_layers, self.score)
        num_heads, num_kv_heads = self.num_q_heads, self.num_kv_heads
        check_window(attention.pattern, self.window, num_heads=num_heads, num_kv_heads=num_kv_heads)
        made = {
            max_new: attention.decoder(
                num_q_heads=self.num_q_heads,
                num_kv_heads=self.num_kv_heads,
                head_dim=self.head_dim,
                max_batch=limits.max_batch,
                max_kv_len=limits.max_kv_len,
                max_new=max_new,
                dtype=limits.dtype,
                device=limits.device,
            )
            for max_new in (limits.max_decode, max(limits.max_new, limits.max_decode))
        }
        return Decoders(*(made[max_new] for max_new in (min(made), max(made))))

    def attend(
        self,
        q: Tensor,
        kv_cache: Tensor,
        step: StepMetadata,
        decoder: Decoder,
        scales: tuple[Tensor, Tensor],
        out: Tensor,
    ) -> None:
        """Attention of all new tokens, whose keys are in the cache already.

        Args:
            q: `[tokens, num_q_heads, head_dim]`; tokens past those of the step are left out.
            kv_cache: As `halves` takes it.
            step: Where requests end, and their blocks.
            decoder: What computes it.
            scales: float32, of one number, of keys and of values, where the cache is float8.
            out: Like q; written to.
        """
        dtype = stored_dtype(self.cache_dtype)
        k, v = halves(kv_cache, self.head_dim, dtype)
        k_scale, v_scale = (None if dtype is None else scale.reshape(1) for scale in scales)
        cache = Paged(k, v, step.block_table, step.seq_lens, "HND", k_scale=k_scale, v_scale=v_scale)
        tensors: Mapping[str, Any] = {} if self.slopes is None else {"slopes": self.slopes}
        tokens = slice(step.num_actual_tokens)
        decoder(q[tokens], cache, step.query_start_loc, out[tokens], sinks=self.sinks, scale=self.scale, **tensors)


def index_of(name: str) -> int:
    """Which layer has such a name in the model, such as "model.layers.3.self_attn.attn".

    Raises:
        ArgumentError: E060, the name says no number, or several.
    """
    numbers = re.findall(r"(?<=\.)\d+(?=\.|$)", f".{name}")
    if len(numbers) != 1:
        raise ArgumentError("E060", f"which layer {name!r} is, its name does not say: it has {len(numbers)} numbers")
    return int(numbers[0])
