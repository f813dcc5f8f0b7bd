"""Continuous batching of transformers: a tiny model of random weights, beside its eager attention."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import spattn
from spattn.errors import ArgumentError, NotDecodableError, UnsupportedError
from spattn.serving import hf

pytestmark = [
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
    pytest.mark.filterwarnings("ignore"),  # its own
]

PATTERN = "causal & (last(6) | sink(2) | columns([::5]))"


def model_of(**options: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.25, "pad_token_id": 0}
    kind = "Mistral" if "sliding_window" in options else "Llama"
    config = getattr(transformers, f"{kind}Config")(**sizes, **heads, bos_token_id=None, eos_token_id=None, **options)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def generated(model: Any, prompts: list[list[int]]) -> list[Any]:
    """New tokens of each prompt and their logarithms of probability; prompts in chunks, beside decode steps."""
    import transformers

    generation = transformers.GenerationConfig(max_new_tokens=8, do_sample=False, eos_token_id=-1, pad_token_id=0)
    batching = transformers.ContinuousBatchingConfig(
        page_size=8, num_blocks=64, max_batch_tokens=24, return_logprobs=True
    )
    found = model.generate_batch(prompts, generation_config=generation, continuous_batching_config=batching)
    by_prompt = {tuple(one.prompt_ids): one for one in found.values()}
    return [by_prompt[tuple(prompt)] for prompt in prompts]


def check(model: Any, patterns: list[str]) -> None:
    """What was generated beside a call of all tokens by the model's eager attention, each layer with its mask."""
    prompts = [torch.randint(1, 97, (n,)).tolist() for n in (3, 17, 40)]
    answers = generated(model, prompts)
    model.set_attn_implementation("eager")
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = [*prompt, *answer.generated_tokens]
        masks = [spattn.parse(one).mask(len(tokens), len(tokens)) for one in patterns]
        biases = [torch.zeros(1, 1, *one.shape).masked_fill(~one, torch.finfo(torch.float32).min) for one in masks]
        hooks = [
            layer.self_attn.register_forward_pre_hook(
                lambda _, args, given, bias=bias: (args, given | {"attention_mask": bias}), with_kwargs=True
            )
            for layer, bias in zip(model.model.layers, biases, strict=True)
        ]
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        for hook in hooks:
            hook.remove()
        assert answer.generated_tokens == logits.argmax(-1).tolist()
        torch.testing.assert_close(torch.tensor(answer.logprobs), logits.max(-1).values, atol=3e-5, rtol=1e-4)


def test_requests_of_all_lengths_are_generated_by_the_pattern() -> None:
    model = model_of()
    hf.apply(model, PATTERN)
    assert model.config.spattn == PATTERN
    check(model, [PATTERN] * 2)


def test_a_layer_has_a_pattern_of_its_own() -> None:
    model = model_of()
    hf.apply(model, "causal & last(w)", bind={"w": 9}, layers={"0": "causal"})
    check(model, ["causal", "causal & last(9)"])


def test_a_sliding_cache_holds_what_the_pattern_needs() -> None:
    model = model_of(sliding_window=8)
    with pytest.raises(UnsupportedError, match="holds the last 8 keys"):
        hf.apply(model, PATTERN)
    pattern = "causal & last(8) & chunk(6)"  # chunks part at positions: those of keys that are left count
    hf.apply(model, pattern)
    check(model, [pattern] * 2)


def test_models_without_a_pattern_are_served_as_before() -> None:
    with_pattern, without = model_of(), model_of()
    hf.apply(with_pattern, "causal & last(3)")
    without.set_attn_implementation(hf.NAME)
    check(without, ["causal"] * 2)


def test_what_is_not_served_is_refused_by_name() -> None:
    model = model_of()
    with pytest.raises(ArgumentError, match="has no pattern"):
        hf.apply(model)
    with pytest.raises(NotDecodableError):
        hf.apply(model, "full")
    hf.apply(model, PATTERN)
    with pytest.raises(UnsupportedError, match="continuous batching alone"):
        model(torch.tensor([[1, 2, 3]]))
    module = SimpleNamespace(config=model.config, layer_idx=0)
    attend, q = hf.PagedAttention(lambda *_: None), torch.zeros(1, 4, 3, 16)
    for name, value in (("dropout", 0.1), ("position_bias", q), ("output_attentions", True)):
        with pytest.raises(UnsupportedError, match=name):
            attend(module, q, q, q, None, 1.0, cu_seq_lens_k=torch.zeros(2), **{name: value})


def test_sinks_and_a_soft_cap_of_the_model() -> None:
    config = SimpleNamespace(spattn="causal & last(3)", num_hidden_layers=1)
    q, k, v = (torch.randn(1, heads, 5, 16) for heads in (4, 2, 2))
    ends, sinks = torch.tensor([0, 2, 5], dtype=torch.int32), torch.linspace(-1, 1, 4)
    given = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 3, "s_aux": sinks, "softcap": 2.0}
    module = SimpleNamespace(config=config, layer_idx=0)
    out, weights = hf.PagedAttention(lambda *_: None)(module, q, k, v, None, 0.25, **given)
    assert weights is None
    attn = spattn.compile("causal & last(3)", score="softcap(2)")
    for first, last in ((0, 2), (2, 5)):
        parts = (x[:, :, first:last] for x in (q, k, v))
        want = attn(*parts, scale=0.25, sinks=sinks)
        torch.testing.assert_close(out[:, first:last].transpose(1, 2), want, atol=1e-5, rtol=1e-5)
