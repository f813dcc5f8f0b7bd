"""Generated kernels compute what models ask for: padding as positions, documents, sinks and soft caps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.hf.models import close, model_of, needs_transformers, padded, tokens

pytestmark = [pytest.mark.interpret, *needs_transformers]

PACKED = {"position_ids": torch.cat([torch.arange(7), torch.arange(13)])[None].expand(2, -1), "use_cache": False}


@pytest.mark.parametrize(("kind", "given"), [
    ("Gemma2", {"attention_mask": padded(left=5)}),
    ("GptOss", {"attention_mask": padded(right=9)}),
    ("Llama", PACKED),
])  # fmt: skip
def test_logits(kind: str, given: dict[str, Any]) -> None:
    kernels, torchs = (
        model_of(kind, spattn={"pattern": "causal & (last(6) | sink(2))", "backend": backend}, num_hidden_layers=1)
        for backend in ("triton", "torch")
    )
    kept = given.get("attention_mask", torch.ones(2, 20)).bool()
    with torch.no_grad():
        close(kernels(tokens(), **given).logits[kept], torchs(tokens(), **given).logits[kept])


def test_generated_text_over_a_static_cache() -> None:
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    kernels, torchs = (
        model_of(spattn={"pattern": "causal & last(6)", "backend": backend}, num_hidden_layers=1).generate(
            tokens(length=8), attention_mask=padded(left=3, length=8), cache_implementation="static", **options
        )
        for backend in ("triton", "torch")
    )
    close(torch.stack(kernels.logits), torch.stack(torchs.logits))
