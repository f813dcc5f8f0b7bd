"""The classes that vLLM asks for: the backend, the builder of a step's metadata, and the implementation of a layer.

Imported by vLLM, of release 0.32 or newer, and by nothing else.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.v1.attention.backend import (
    AttentionBackend,
    AttentionCGSupport,
    AttentionImpl,
    AttentionMetadataBuilder,
    MultipleOf,
)

from spattn.config.schema import AttentionConfig
from spattn.errors import ArgumentError
from spattn.gpu.limits import MAX_HEAD_DIM
from spattn.serving.settings import VARIABLE, attention_of, config_of
from spattn.serving.vllm.blocks import STORED, halves, stored_dtype, write
from spattn.serving.vllm.layers import Decoders, Layer, Limits, index_of
from spattn.serving.vllm.step import StepMetadata

BLOCK = 16  # a block of the cache holds a multiple of so many tokens


class PatternBackend(AttentionBackend):
    """What vLLM asks before it chooses."""

    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.float16, torch.bfloat16, torch.float32]
    supported_kv_cache_dtypes: ClassVar[list[str]] = [*STORED]
    forward_includes_kv_cache_update = False

    @staticmethod
    def get_name() -> str:
        """By which vLLM knows it."""
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> type[PatternLayer]:
        """What a layer is made of."""
        return PatternLayer

    @staticmethod
    def get_builder_cls() -> type[PatternBuilder]:
        """What makes the metadata of steps."""
        return PatternBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: Any = None) -> list[Any]:
        """Tokens of a block."""
        del kv_cache_spec
        return [MultipleOf(BLOCK)]

    @classmethod
    def supports_head_size(cls, head_size: int) -> bool:
        """Is a head as wide as kernels can have it?"""
        return 1 <= head_size <= MAX_HEAD_DIM

    @classmethod
    def supports_sink(cls) -> bool:
        """A logit without a value, in each row."""
        return True

    @classmethod
    def supports_sliding_window(cls) -> bool:
        """Caches that drop what no pattern of theirs needs; each layer is checked."""
        return True


class PatternBuilder(AttentionMetadataBuilder[StepMetadata]):
    """Metadata of steps, and the decoders of the layers that share it: made here, before any graph is captured."""

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> AttentionCGSupport:
        """Of all steps, but by the torch backend, which reads lengths on the host."""
        del kv_cache_spec
        by_torch = attention_config(vllm_config).backend == "torch"
        return AttentionCGSupport.NEVER if by_torch else AttentionCGSupport.ALWAYS

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        config = attention_config(vllm_config)
        limits = limits_of(vllm_config, device)
        made: dict[tuple[Any, ...], Decoders] = {}
        for name in layer_names:
            impl, index = vllm_config.compilation_config.static_forward_context[name].impl, index_of(name)
            layer: Layer = impl.layer
            attention = attention_of(config, index, limits.num_layers, layer.score)
            alike = attention, layer.num_q_heads, layer.num_kv_heads, layer.head_dim, layer.window
            if alike not in made:  # layers run one after the other, and share the decoder's workspace
                made[alike] = layer.decoders(config, index, limits)
            impl.decoders = made[alike]

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> StepMetadata:
        """Of a step, without a look at any number on the device."""
        del common_prefix_len, fast_build
        return StepMetadata.of(common_attn_metadata)


class PatternLayer(AttentionImpl[StepMetadata]):
    """A layer. Arguments are those of vLLM's `AttentionImpl`, and `sinks`."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = "decoder",
        kv_sharing_target_layer_name: str | None = None,
        sinks: Tensor | None = None,
    ) -> None:
        self.num_heads, self.head_size, self.scale = num_heads, head_size, float(scale)
        self.num_kv_heads, self.kv_cache_dtype = num_kv_heads or num_heads, kv_cache_dtype
        slopes = None if alibi_slopes is None else torch.tensor(alibi_slopes, dtype=torch.float32)
        self.layer = Layer(
            num_heads,
            self.num_kv_heads,
            head_size,
            self.scale,
            cache_dtype=kv_cache_dtype,
            window=sliding_window,
            slopes=slopes,
            softcap=logits_soft_cap,
            sinks=sinks,
            kind=str(getattr(attn_type, "value", attn_type)),
            shared=kv_sharing_target_layer_name,
        )
        self.decoders: Decoders | None = None

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Writes keys and values of new tokens, by vLLM's kernel where there is a GPU."""
        dtype = stored_dtype(self.kv_cache_dtype)
        k, v = halves(kv_cache, self.head_size, dtype)
        if kv_cache.is_cuda:
            from vllm.v1.attention.ops.triton_reshape_and_cache_flash import triton_reshape_and_cache_flash

            pages = k.transpose(1, 2), v.transpose(1, 2)
            scales = layer._k_scale, layer._v_scale
            triton_reshape_and_cache_flash(key, value, *pages, slot_mapping, self.kv_cache_dtype, *scales)
            return
        for new, stored, scale in ((key, k, layer._k_scale), (value, v, layer._v_scale)):
            write(new, stored, slot_mapping, None if dtype is None else scale.reshape(1))

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: StepMetadata | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Attention of all new tokens, into `output`; zeros where vLLM measures its memory."""
        del key, value, output_scale, output_block_scale  # fused quantization is not offered
        if attn_metadata is None:
            return output.fill_(0)
        assert self.decoders is not None
        decoder = self.decoders.serving(attn_metadata.max_query_len)
        scales = layer._k_scale, layer._v_scale
        self.layer.attend(query, kv_cache, attn_metadata, decoder, scales, output)
        return output


def attention_config(vllm_config: Any) -> AttentionConfig:
    """Patterns of the model.

    Raises:
        ArgumentError: E060, it has none.
    """
    model = vllm_config.model_config
    found = config_of(model.hf_text_config) or config_of(model.hf_config)
    if found is None:
        hint = f"hf_overrides={{'spattn': 'causal & last(1024)'}}, or the environment's {VARIABLE}"
        raise ArgumentError("E060", "the model has no pattern", hint=hint)
    return found


def limits_of(vllm_config: Any, device: torch.device) -> Limits:
    """What a step may have."""
    model, scheduler, speculation = (
        vllm_config.model_config,
        vllm_config.scheduler_config,
        vllm_config.speculative_config,
    )
    drafts = 0 if speculation is None else speculation.num_speculative_tokens or 0
    return Limits(
        # a graph's steps are padded to the size that was captured
        max_batch=max(scheduler.max_num_seqs, vllm_config.compilation_config.max_cudagraph_capture_size or 0),
        max_kv_len=model.max_model_len,
        max_new=min(scheduler.max_num_batched_tokens, model.max_model_len),
        max_decode=1 + drafts,
        num_layers=model.hf_text_config.num_hidden_layers,
        dtype=model.dtype,
        device=device,
    )
