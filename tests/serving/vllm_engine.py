"""A program: vLLM generates by a pattern on a CPU, and each token is checked against transformers' eager attention.

vLLM takes its own backend on a CPU whatever is asked for, so that ours is registered in its place.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1")
os.environ.update(VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR")

import torch  # noqa: E402  vLLM reads the environment when it is imported
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend  # noqa: E402

import spattn  # noqa: E402
from spattn.serving.vllm import BACKEND, register  # noqa: E402

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": (
        "causal & (last(20) | sink(2) | columns([::7]))",
        {"spattn": "causal & (last(20) | sink(2) | columns([::7]))"},
    ),
    "sliding": (
        "causal & last(20)",
        {
            "spattn": {"pattern": "causal & last(w)", "bind": {"w": 20}},
            "sliding_window": 20,
            "layer_types": ["sliding_attention"] * 2,
        },
    ),
}


def main(pattern: str, overrides: dict[str, Any]) -> None:
    """Greedy tokens of three prompts, the longest in chunks beside the decode steps of others."""
    register()
    backend = AttentionBackendEnum.CUSTOM.get_class()
    asked = {"use_mla": False, "has_sink": True, "use_sparse": False, "use_mm_prefix": False, "attn_type": "decoder"}
    asked |= {"use_per_head_quant_scales": False, "device_capability": None}
    usual = {"head_size": 64, "dtype": torch.bfloat16, "kv_cache_dtype": "fp8", "block_size": 16, **asked}
    assert backend.validate_configuration(**usual, has_sliding_window=True) == []
    for change in ({"use_mla": True}, {"block_size": 24}, {"attn_type": "encoder_only"}, {"kv_cache_dtype": "nvfp4"}):
        assert len(backend.validate_configuration(**(usual | change))) == 1, change

    register_backend(AttentionBackendEnum.CPU_ATTN, BACKEND)
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.25}
    tokens = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": 0}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, **tokens, max_position_embeddings=256)).eval()
    prompts = [torch.randint(1, 97, (n,)).tolist() for n in (3, 17, 60)]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        limits = {"max_model_len": 128, "max_num_seqs": 4, "max_num_batched_tokens": 32, "block_size": 16}
        engine = LLM(
            folder, skip_tokenizer_init=True, dtype="float32", enforce_eager=True, hf_overrides=overrides, **limits
        )
    sampling = SamplingParams(max_tokens=12, temperature=0, logprobs=1, ignore_eos=True, detokenize=False)
    answers = engine.generate([{"prompt_token_ids": one} for one in prompts], sampling, use_tqdm=False)
    model.set_attn_implementation("eager")
    for prompt, answer in zip(prompts, answers, strict=True):
        found = list(answer.outputs[0].token_ids)
        mask = spattn.parse(pattern).mask(len(prompt) + 12, len(prompt) + 12)
        bias = torch.zeros(1, 1, *mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *found]]), attention_mask=bias).logits[0, len(prompt) - 1 : -1]
        wanted = logits.log_softmax(-1)
        assert found == wanted.argmax(-1).tolist()
        given = torch.tensor([one[token].logprob for one, token in zip(answer.outputs[0].logprobs, found, strict=True)])
        torch.testing.assert_close(given, wanted.max(-1).values, atol=3e-5, rtol=1e-4)
    print("right", len(answers))


if __name__ == "__main__":
    main(*CASES[sys.argv[1]])
