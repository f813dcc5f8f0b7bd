"""What spattn.hf refuses, each by its name; nothing becomes dense in silence."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

import spattn
from spattn.errors import ConfigError, NotDecodableError, UnsupportedError
from tests.hf.models import model_of, needs_transformers, padded, tokens

pytestmark = needs_transformers


def refused(match: str, call: Any) -> None:
    with pytest.raises(UnsupportedError, match=match):
        call()


def test_dropout_in_training() -> None:
    model = model_of(attention_dropout=0.1)
    model(tokens())
    refused(r"dropout of 0.1[\s\S]*config.attention_dropout", lambda: model.train()(tokens()))


def test_weights() -> None:
    model = model_of()
    refused("output_attentions", lambda: model(tokens(), output_attentions=True))


def test_masks_that_no_pattern_says() -> None:
    model, ids = model_of(), tokens()
    holes = padded()
    holes[1, 5] = 0
    refused("between others of a row", lambda: model(ids, attention_mask=holes))
    bias = torch.rand(2, 1, 20, 20)
    refused("is a bias", lambda: model(ids, attention_mask=bias))
    refused("a mask of shape", lambda: model(ids, attention_mask=bias[..., :7]))
    model.config.spattn = "causal"
    refused("one says which pairs", lambda: model(ids, attention_mask=bias > 0.5))


def test_chunks_of_documents_that_start_elsewhere() -> None:
    positions = torch.cat([torch.arange(3, 10), torch.arange(13)])[None]
    refused(
        "chunks of a packed document", lambda: model_of("Llama4")(tokens(1), position_ids=positions, use_cache=False)
    )
    model_of("Mistral")(tokens(1), position_ids=positions, use_cache=False)  # a window is the same wherever it starts


def test_parts_of_a_mask_that_are_not_known() -> None:
    from transformers.masking_utils import create_causal_mask

    config, embeds = model_of().config, torch.zeros(1, 4, 64)

    def mine(b: Any, h: Any, q: Any, k: Any) -> Any:
        return k == 0

    given = {"config": config, "inputs_embeds": embeds, "attention_mask": None, "cache": None}
    refused("or_masks", lambda: create_causal_mask(**given, or_mask_function=mine))
    refused("test_parts_of", lambda: create_causal_mask(**given, and_mask_function=mine))


@pytest.mark.parametrize("name", ["position_bias", "head_mask", "indices"])
def test_arguments_that_change_the_answer(name: str) -> None:
    from spattn.hf.call import attend

    model, q = model_of(), torch.zeros(1, 4, 3, 16)
    module = model.model.layers[0].self_attn
    refused(name, lambda: attend(module, q, q[:, :2], q[:, :2], None, 1.0, **{name: q}))
    refused("a causal layer was given no mask", lambda: attend(module, q, q[:, :2], q[:, :2], None, 1.0))


@pytest.mark.parametrize("cache", [None, "static"])
def test_a_cache_that_drops_keys_of_the_pattern(cache: str | None) -> None:
    """Also with padding, where tensors say positions and a call cannot see what is missing."""
    for pattern in ("causal & last(20)", "causal & (last(4) | sink(1))"):
        model = model_of("Mistral", spattn=pattern)
        for keep in (padded(length=12), padded(left=5, length=12)):
            refused(
                r"holds the last 8 keys[\s\S]*DynamicCache",
                lambda model=model, keep=keep: model.generate(
                    tokens(length=12), attention_mask=keep, max_new_tokens=4, cache_implementation=cache
                ),
            )


def test_chunks_of_a_model_drop_keys_too() -> None:
    model = model_of("Llama4", spattn="causal & last(20)")
    refused("holds the last 8 keys", lambda: model.generate(tokens(length=12), max_new_tokens=4))


def test_patterns_of_a_causal_model_that_look_ahead_or_change() -> None:
    for pattern in ("local(4)", "last(4) | random(2, block=4)"):
        model = model_of()
        with pytest.raises(NotDecodableError):
            spattn.hf.apply(model, pattern)
        assert not hasattr(model.config, "spattn")  # as it was
        model(tokens())


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="layer"):
        spattn.hf.apply(model_of(), "causal", layers={2: "causal"})
    refused("reads ids", lambda: spattn.hf.apply(model_of(), "causal & documents(ids)"))


def test_models_that_never_ask_for_an_attention_function() -> None:
    import transformers

    sizes = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
    config = transformers.BigBirdConfig(**sizes, num_attention_heads=4, block_size=8, num_random_blocks=1)
    model = transformers.BigBirdForMaskedLM(config).eval()
    refused("takes no attention functions", lambda: spattn.hf.apply(model, "full"))
    eager = model_of()
    eager.set_attn_implementation("sdpa")
    refused("no layer of LlamaForCausalLM runs spattn; its attention is 'sdpa'", lambda: spattn.hf.table(eager, 64))


def test_models_that_compute_with_their_masks() -> None:
    model = model_of("BigBird", "Model", attention_type="original_full")
    refused("computes with the mask itself", lambda: model(tokens()))


def test_patterns_where_they_have_no_meaning() -> None:
    decoder = model_of("Bert", "LMHeadModel", is_decoder=True, add_cross_attention=True)
    refused("without cross attention", lambda: spattn.hf.apply(decoder, "causal"))
    refused("models of text", lambda: spattn.hf.apply(model_of("ViT", "Model", image_size=32), "full"))


def test_a_position_bias() -> None:
    import transformers

    sizes = {"vocab_size": 97, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 1, "num_heads": 4}
    config = transformers.T5Config(**sizes, decoder_start_token_id=0, dropout_rate=0.0)
    model = transformers.T5ForConditionalGeneration._from_config(config, attn_implementation="spattn").eval()
    refused("position_bias", lambda: model(input_ids=tokens(), labels=tokens()))


def test_without_transformers_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformers'] = None; import spattn.hf"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "E050" in answer.stderr
    assert "pip install 'spattn[hf]'" in answer.stderr
