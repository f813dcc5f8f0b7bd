"""A model's own mask: logits, gradients and generated text are those of its eager attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.hf.models import DECODERS, close, eager, model_of, needs_transformers, padded, tokens

pytestmark = needs_transformers

PACKED = {"position_ids": torch.cat([torch.arange(7), torch.arange(13)])[None].expand(2, -1), "use_cache": False}
GIVEN: list[dict[str, Any]] = [
    {},
    {"attention_mask": padded(left=5)},
    {"attention_mask": padded(right=9)},
    {"attention_mask": padded(left=4, right=3)},
    PACKED,
]


@pytest.mark.parametrize("kind", DECODERS)
def test_logits(kind: str) -> None:
    model, ids = model_of(kind), tokens()
    with torch.no_grad():
        for given in GIVEN:
            wanted, found = eager(model, lambda given=given: model(ids, **given).logits), model(ids, **given).logits
            kept = given.get("attention_mask", torch.ones(2, 20)).bool()
            close(found[kept], wanted[kept])


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("cache", [None, "static"])
def test_generated_text(kind: str, cache: str | None) -> None:
    """With a window or chunks of 8 tokens caches drop keys meanwhile. Logits are compared, for tokens hide much."""
    model, ids = model_of(kind), tokens(length=6)
    options = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    for keep in (padded(length=6), padded(left=3, length=6)):

        def call(keep: torch.Tensor = keep) -> Any:
            return model.generate(ids, attention_mask=keep, cache_implementation=cache, **options)

        wanted, found = eager(model, call), call()
        assert torch.equal(found.sequences, wanted.sequences)
        close(torch.stack(found.logits), torch.stack(wanted.logits))


@pytest.mark.parametrize("kind", ["Mistral", "GptOss"])
def test_a_training_step(kind: str) -> None:
    model, ids, keep = model_of(kind).train(), tokens(), padded(right=9)
    labels = ids.masked_fill(keep == 0, -100)

    def step() -> list[torch.Tensor]:
        model.zero_grad()
        loss = model(ids, attention_mask=keep, labels=labels).loss
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    for found, wanted in zip(step(), eager(model, step), strict=True):
        close(found, wanted)


def test_an_encoder_attends_both_ways() -> None:
    model, ids = model_of("Bert", "Model"), tokens()
    with torch.no_grad():
        for keep in (None, padded(right=9)):
            wanted = eager(model, lambda keep=keep: model(ids, attention_mask=keep).last_hidden_state)
            close(model(ids, attention_mask=keep).last_hidden_state[:, :11], wanted[:, :11])


def test_a_window_of_an_encoder() -> None:
    model, ids = model_of("ModernBert", "Model", local_attention=8, global_attn_every_n_layers=2), tokens()
    with torch.no_grad():
        wanted = eager(model, lambda: model(ids).last_hidden_state)
        close(model(ids).last_hidden_state, wanted)


def test_an_encoder_of_images_is_given_no_mask() -> None:
    model = model_of("ViT", "Model", image_size=32, patch_size=8)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        close(model(pixels).last_hidden_state, eager(model, lambda: model(pixels).last_hidden_state))


@pytest.mark.parametrize("cache", [None, "static"])
def test_a_decoder_that_attends_an_encoder(cache: str | None) -> None:
    sizes = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "init_std": 0.25}
    ends = {"bos_token_id": 1, "decoder_start_token_id": 2, "forced_eos_token_id": None}
    model = model_of("Bart", "ForConditionalGeneration", **sizes, **heads, **ends)
    options = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}

    def call() -> Any:
        return model.generate(tokens(), attention_mask=padded(right=9), cache_implementation=cache, **options)

    wanted, found = eager(model, call), call()
    assert torch.equal(found.sequences, wanted.sequences)
    close(torch.stack(found.logits), torch.stack(wanted.logits))


def test_compiled_models_answer_the_same() -> None:
    model, ids = model_of("Mistral", num_hidden_layers=1), tokens()
    given = {"attention_mask": padded(left=5), "use_cache": False}
    with torch.no_grad():
        wanted = model(ids, **given).logits
        close(torch.compile(model, backend="aot_eager")(ids, **given).logits, wanted)


@pytest.mark.parametrize("heads", [1, 4])
def test_a_mask_of_pairs_that_the_user_gives(heads: int) -> None:
    model, ids = model_of(), tokens()
    allowed = torch.rand(2, heads, 20, 20, generator=torch.Generator().manual_seed(2)) < 0.5
    allowed |= torch.eye(20, dtype=torch.bool)
    bias = torch.zeros(2, heads, 20, 20).masked_fill(~allowed, torch.finfo(torch.float32).min)
    with torch.no_grad():
        wanted = eager(model, lambda: model(ids, attention_mask=bias).logits)
        for mask in (bias, allowed):
            close(model(ids, attention_mask=mask).logits, wanted)


def test_rows_of_the_same_text_do_not_see_their_padding() -> None:
    """A mask that is ignored would show here, and not where nothing is padded."""
    model, ids = model_of(), tokens()
    with torch.no_grad():
        alone = model(ids[1:, 5:]).logits
        close(model(ids, attention_mask=padded(left=5)).logits[1:, 5:], alone)
