"""Tiny models of random weights, with attention that is not flat, so that what they generate differs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch

VOCABULARY = 97
DECODERS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 8},
    "Qwen3": {"head_dim": 16},
    "Gemma2": {"sliding_window": 8, "head_dim": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 2.0},
    "GptOss": {"sliding_window": 8, "head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1},
    "Llama4": {"attention_chunk_size": 8, "head_dim": 16, "num_local_experts": 2, "intermediate_size_mlp": 96},
}
"""Families of decoders and what their configs say besides sizes."""

needs_transformers = [
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
    pytest.mark.filterwarnings("ignore"),  # its own
]


def model_of(kind: str = "Llama", head: str = "ForCausalLM", **options: Any) -> Any:
    """A model with attn_implementation="spattn"; `model.set_attn_implementation("eager")` makes it its own judge."""
    import transformers

    import spattn.hf  # noqa: F401  registers it

    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.25, "pad_token_id": 0}
    ends = {"bos_token_id": None, "eos_token_id": None, "max_position_embeddings": 128}
    name = "Llama4TextConfig" if kind == "Llama4" else f"{kind}Config"
    config = getattr(transformers, name)(**sizes | heads | ends | DECODERS.get(kind, {}) | options)
    return getattr(transformers, kind + head)._from_config(config, attn_implementation="spattn").eval()


def tokens(batch_size: int = 2, length: int = 20) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (batch_size, length), generator=torch.Generator().manual_seed(1))


def padded(left: int = 0, right: int = 0, length: int = 20) -> torch.Tensor:
    """Which of two rows' tokens are no padding; the second row has padding."""
    keep = torch.ones(2, length, dtype=torch.long)
    keep[1, :left] = 0
    keep[1, length - right :] = 0
    return keep


def eager(model: Any, call: Any) -> Any:
    """What a call answers while the model runs its own eager attention."""
    model.set_attn_implementation("eager")
    try:
        return call()
    finally:
        model.set_attn_implementation("spattn")


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=2e-5 * float(wanted.detach().abs().max()), rtol=0)
