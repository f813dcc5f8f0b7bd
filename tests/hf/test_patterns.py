"""A pattern in the place of a model's own mask, beside eager attention under the pattern's mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import spattn
from tests.hf.models import close, eager, model_of, needs_transformers, padded, tokens

pytestmark = needs_transformers

PATTERN = "causal & (last(6) | sink(2) | columns([::5]))"
LAYERS = {"pattern": "causal & (last(w) | sink(2))", "bind": {"w": 5}, "layers": {"-1": "causal"}}


def by_mask(model: Any, ids: torch.Tensor, patterns: list[str]) -> torch.Tensor:
    """Logits of a model of eager attention whose layers have these patterns as masks of pairs."""
    masks = [spattn.parse(one).mask(ids.shape[1], ids.shape[1]) for one in patterns]
    biases = [torch.zeros(1, 1, *one.shape).masked_fill(~one, torch.finfo(torch.float32).min) for one in masks]
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda _, args, given, bias=bias: (args, given | {"attention_mask": bias}), with_kwargs=True
        )
        for layer, bias in zip(model.model.layers, biases, strict=True)
    ]
    try:
        return eager(model, lambda: model(ids).logits)  # type: ignore[no-any-return]
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(("kind", "settings", "patterns"), [
    ("Llama", PATTERN, [PATTERN] * 2),
    ("Llama", LAYERS, ["causal & (last(5) | sink(2))", "causal"]),
    ("Gemma2", PATTERN, [PATTERN] * 2),
])  # fmt: skip
def test_logits(kind: str, settings: Any, patterns: list[str]) -> None:
    """Padding to the left moves a row's positions: they count from its first token, as in a row without padding."""
    model, ids = model_of(kind, spattn=settings), tokens()
    with torch.no_grad():
        close(model(ids).logits, by_mask(model, ids, patterns))
        alone = by_mask(model, ids[1:, 5:], patterns)
        close(model(ids, attention_mask=padded(left=5)).logits[1:, 5:], alone)
        packed = torch.cat([ids[:1, :7], ids[1:, 5:]], 1)
        positions = torch.cat([torch.arange(7), torch.arange(15)])[None]
        close(model(packed, position_ids=positions, use_cache=False).logits[:, 7:], alone)


@pytest.mark.parametrize("cache", [None, "static"])
def test_generated_text(cache: str | None) -> None:
    model, ids = model_of(spattn=PATTERN), tokens(length=12)
    options = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    found = model.generate(ids, attention_mask=padded(left=5, length=12), cache_implementation=cache, **options)
    logits = torch.stack(found.logits, 1)
    with torch.no_grad():
        for row, start in ((0, 0), (1, 5)):
            wanted = by_mask(model, found.sequences[row : row + 1, start:], [PATTERN] * 2)
            close(logits[row], wanted[0, -9:-1])


def test_apply_gives_a_loaded_model_a_pattern_and_the_config_keeps_it(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    model, ids = model_of(), tokens()
    assert spattn.hf.apply(model, "causal & (last(w) | sink(2))", bind={"w": 5}, layers={-1: "causal"}) is model
    assert model.config.spattn == LAYERS
    with torch.no_grad():
        logits = model(ids).logits
        close(logits, by_mask(model, ids, ["causal & (last(5) | sink(2))", "causal"]))
        model.save_pretrained(tmp_path)
        again = LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="spattn").eval()
        close(again(ids).logits, logits)


def test_an_encoder_looks_both_ways() -> None:
    pattern = "local(3) | global([0])"
    model, ids = spattn.hf.apply(model_of("Bert", "Model"), pattern), tokens()
    mask = spattn.parse(pattern).mask(20, 20)
    bias = torch.zeros(1, 1, 20, 20).masked_fill(~mask, torch.finfo(torch.float32).min)
    with torch.no_grad():
        wanted = eager(model, lambda: model(ids, attention_mask=bias).last_hidden_state)
        close(model(ids).last_hidden_state, wanted)


def test_the_table_says_what_each_layer_runs() -> None:
    rows = spattn.hf.table(model_of("Gemma2"), 64)
    assert [row.pattern for row in rows] == ["causal & last(8)", "causal"]
    assert [row.cache for row in rows] == ["the last 8", "all keys"]
    assert rows[1].share == spattn.parse("causal").density(64, 64)
    assert rows[0].score == "softcap(2.0)"
    wide = spattn.hf.apply(model_of("Mistral"), "causal & last(20)")
    assert "refused past 8 tokens" in str(spattn.hf.table(wide, 64))
    assert spattn.hf.table(model_of("GptOss"), 64)[0].score == "sinks"


def test_a_layer_on_a_cache_that_keeps_enough() -> None:
    """A window that is wider than the model's needs a cache that keeps all keys, which the user may give."""
    from transformers import DynamicCache

    model, ids = model_of("Mistral", spattn="causal & last(20)"), tokens(1, 12)
    options = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    found = model.generate(ids, past_key_values=DynamicCache(), **options)
    with torch.no_grad():
        wanted = by_mask(model, found.sequences, ["causal & last(20)"] * 2)
    close(torch.stack(found.logits, 1)[0], wanted[0, -9:-1])
