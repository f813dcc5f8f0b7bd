"""The part of the vLLM backend that knows tensors alone, in vLLM's shapes, beside dense attention in float64."""

from __future__ import annotations

import ast
import sys
import tomllib
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import spattn
from spattn.config import AttentionConfig
from spattn.errors import ArgumentError, NotDecodableError, UnsupportedError
from spattn.serving.vllm.blocks import halves, stored_dtype, write
from spattn.serving.vllm.layers import Layer, Limits, index_of
from spattn.serving.vllm.step import StepMetadata

PROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"
HEADS, KV_HEADS, DIM, BLOCK = 4, 2, 16, 16
LIMITS = Limits(3, 128, 64, 1, 2, torch.float32, torch.device("cpu"))
LAYER = Layer(HEADS, KV_HEADS, DIM, 0.25)
ORDERS = [(0, 1, 2, 3), (0, 2, 1, 3), (1, 0, 2, 3)]
PATTERN = "causal & (last(20) | sink(2))"


class Engine:
    """Requests, their tokens, and a cache of blocks in any order of memory, full of NaN; as vLLM lays them out."""

    def __init__(self, order: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        sizes = [20, KV_HEADS, BLOCK, 2 * DIM]
        memory = torch.full([sizes[axis] for axis in order], float("nan")).to(dtype)
        self.kv_cache = memory.permute(*np.argsort(order).tolist())
        self.table = (torch.randperm(19, dtype=torch.int32)[:18] + 1).view(3, 6)  # block 0 is nobody's
        self.tokens: list[Tensor] = [torch.zeros(2, 0, KV_HEADS, DIM)] * 3

    def step(self, new: list[int], padding: int = 0) -> Any:
        """New tokens of each request, as `CommonAttentionMetadata`; `padding` tokens and requests are none's."""
        lens = [one.shape[1] for one in self.tokens]
        self.tokens = [
            torch.cat([x, torch.randn(2, m, KV_HEADS, DIM)], 1) for x, m in zip(self.tokens, new, strict=True)
        ]
        slots = [
            int(self.table[b, p // BLOCK]) * BLOCK + p % BLOCK
            for b, (n, m) in enumerate(zip(lens, new, strict=True))
            for p in range(n, n + m)
        ]
        ends = np.cumsum([0, *new, *[0] * padding])
        seq_lens = [x.shape[1] if m else 0 for x, m in zip(self.tokens, new, strict=True)]
        return SimpleNamespace(
            causal=True,
            num_actual_tokens=sum(new) + padding,
            max_query_len=max(new),
            query_start_loc=torch.tensor(ends, dtype=torch.int32),
            seq_lens=torch.tensor([*seq_lens, *[0] * padding], dtype=torch.int32),
            block_table_tensor=torch.cat([self.table, torch.zeros(padding, 6, dtype=torch.int32)]),
            slot_mapping=torch.tensor([*slots, *[-1] * padding]),
        )

    def write(self, new: list[int], common: Any, cache_dtype: str, scales: tuple[Tensor, Tensor]) -> None:
        """The newest tokens into the cache."""
        dtype = stored_dtype(cache_dtype)
        newest = torch.cat([x[:, x.shape[1] - m :] for x, m in zip(self.tokens, new, strict=True)], 1)
        rest = len(common.slot_mapping) - sum(new)
        newest = torch.cat([newest, torch.randn(2, rest, KV_HEADS, DIM)], 1)
        for tokens, stored, scale in zip(newest, halves(self.kv_cache, DIM, dtype), scales, strict=True):
            write(tokens, stored, common.slot_mapping, None if dtype is None else scale.reshape(1))


def ones() -> tuple[Tensor, Tensor]:
    return torch.tensor(1.0), torch.tensor(1.0)


def expected(pattern: str, q: Tensor, tokens: Tensor, score: Any = None, sinks: Tensor | None = None) -> Tensor:
    """Dense attention of the last rows of a request in float64, `[rows, heads, dim]`."""
    rows, n = q.shape[0], tokens.shape[1]
    mask = torch.as_tensor(spattn.parse(pattern).mask(rows, n, num_heads=HEADS)).expand(HEADS, rows, n)
    k, v = (x.double().repeat_interleave(HEADS // KV_HEADS, 1) for x in tokens)
    s = torch.einsum("mhd,nhd->hmn", q.double(), k) * 0.25
    if score is not None:
        distance = torch.arange(n)[None] - torch.arange(n - rows, n)[:, None]
        s = score(s, distance)
    s = s.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        s = torch.cat([s, sinks.double()[:, None, None].expand(HEADS, rows, 1)], -1)
    return torch.einsum("hmn,nhd->mhd", s.softmax(-1)[..., :n], v)


def run(layer: Layer, pattern: str, steps: list[list[int]], order: tuple[int, ...] = ORDERS[0], **checks: Any) -> None:
    """All steps of three requests, each beside the answer of its own."""
    fp8 = layer.cache_dtype == "fp8"
    engine, scales = Engine(order, torch.uint8 if fp8 else torch.float32), ones()
    decoders = layer.decoders(AttentionConfig(pattern), 0, LIMITS)
    for new in steps:
        padding = 1 if sum(m > 0 for m in new) < 3 and 0 not in new else 0
        common = engine.step(new, padding)
        engine.write(new, common, layer.cache_dtype, scales)
        step = StepMetadata.of(common)
        q, out = torch.randn(sum(new) + 5, HEADS, DIM), torch.full((sum(new) + 5, HEADS, DIM), 7.0)
        layer.attend(q, engine.kv_cache, step, decoders.serving(step.max_query_len), scales, out)
        assert bool((out[sum(new) :] == 7).all())  # tokens of no request
        first = 0
        for tokens, m in zip(engine.tokens, new, strict=True):
            own = slice(first, first + m)
            if m:
                held = tokens.to(torch.float8_e4m3fn).float() if fp8 else tokens
                torch.testing.assert_close(
                    out[own].double(), expected(pattern, q[own], held, **checks), atol=2e-5, rtol=1e-4
                )
            first += m


@settings(max_examples=12)
@given(
    st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3).filter(any), min_size=1, max_size=4),
    st.sampled_from(ORDERS),
    st.sampled_from(["causal", PATTERN, "chunk(8) & causal", "(last(6) | columns([::5])) & causal"]),
)
def test_steps_over_blocks_are_those_of_the_pattern(
    steps: list[list[int]], order: tuple[int, ...], pattern: str
) -> None:
    run(LAYER, pattern, steps, order)


def test_steps_with_sinks_slopes_and_a_soft_cap() -> None:
    steps = [[20, 3, 0], [1, 1, 9], [1, 1, 1]]
    sinks, slopes = torch.linspace(-1, 1, HEADS), torch.tensor([0.5, 0.25, 0.125, 0.0625])
    run(replace(LAYER, sinks=sinks), PATTERN, steps, sinks=sinks)
    run(replace(LAYER, slopes=slopes), PATTERN, steps, score=lambda s, d: s + slopes.double()[:, None, None] * d)
    run(replace(LAYER, softcap=2.0), PATTERN, steps, score=lambda s, d: 2 * torch.tanh(s / 2))
    run(replace(LAYER, cache_dtype="fp8"), PATTERN, steps)


def test_tokens_and_requests_that_pad_a_batch_write_nothing() -> None:
    engine = Engine(ORDERS[0])
    common = engine.step([3, 2, 1], padding=2)
    before = engine.kv_cache.clone()
    engine.write([3, 2, 1], common, "auto", ones())
    changed = (before.nan_to_num(9.0) != engine.kv_cache.nan_to_num(9.0)).any(-1)
    assert int(changed.sum()) == 6 * KV_HEADS
    layer = replace(LAYER)
    decoders = layer.decoders(AttentionConfig("causal"), 0, replace(LIMITS, max_batch=5))
    out = torch.full((8, HEADS, DIM), 7.0)
    step = StepMetadata.of(common)
    layer.attend(torch.randn(8, HEADS, DIM), engine.kv_cache, step, decoders.serving(3), ones(), out)
    assert bool((out[6:] == 7).all())
    assert not bool(out[:6].isnan().any())


def test_a_step_without_prompts_has_a_decoder_of_its_own() -> None:
    decoders = LAYER.decoders(AttentionConfig("causal"), 0, replace(LIMITS, max_decode=3))
    assert [decoders.serving(m).max_new for m in (1, 3, 4, 64)] == [3, 3, 64, 64]
    alone = LAYER.decoders(AttentionConfig("causal"), 0, replace(LIMITS, max_new=1, max_decode=1))
    assert alone.serving(1).max_new == 1


def test_no_number_of_a_tensor_is_read_for_the_metadata_of_a_step() -> None:
    common = Engine(ORDERS[0]).step([2, 1, 1])
    for name in ("query_start_loc", "seq_lens", "block_table_tensor", "slot_mapping"):
        setattr(common, name, getattr(common, name).to("meta"))  # has no numbers
    step = StepMetadata.of(common)
    assert step.seq_lens is common.seq_lens
    assert step.max_query_len == 2


def test_what_is_not_served_is_refused_by_name() -> None:
    for options, reason in (
        ({"kind": "encoder_only"}, "encoder_only"),
        ({"shared": "model.layers.0.self_attn.attn"}, "reads the cache of model.layers.0"),
        ({"cache_dtype": "int4_per_token_head"}, "int4_per_token_head"),
    ):
        with pytest.raises(UnsupportedError, match=reason):
            replace(LAYER, **options)
    with pytest.raises(ArgumentError, match="sinks has shape"):
        replace(LAYER, sinks=torch.zeros(3))
    with pytest.raises(UnsupportedError, match="needs the last 20"):
        replace(LAYER, window=16).decoders(AttentionConfig("causal & last(20)"), 0, LIMITS)
    nowhere = replace(LIMITS, device=torch.device("cuda"), dtype=torch.float64)
    with pytest.raises(UnsupportedError, match="backend 'triton'"):  # a graph cannot hold the torch backend
        LAYER.decoders(AttentionConfig("causal"), 0, nowhere)
    with pytest.raises(NotDecodableError):
        LAYER.decoders(AttentionConfig("full"), 0, LIMITS)
    common = Engine(ORDERS[0]).step([2, 1, 1])
    with pytest.raises(UnsupportedError, match="not causal"):
        StepMetadata.of(SimpleNamespace(**{**vars(common), "causal": False}))


def test_the_number_of_a_layer_is_in_its_name() -> None:
    assert index_of("model.layers.3.self_attn.attn") == 3
    assert index_of("transformer.h.12.attn") == 12
    for name in ("model.attn", "model.layers.3.experts.2.attn", "model.layers3.attn"):
        with pytest.raises(ArgumentError, match="its name does not say"):
            index_of(name)


def test_the_plugin_names_the_backend_and_imports_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    door = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]["vllm.general_plugins"]["spattn"]
    module, name = door.split(":")
    registered: dict[Any, str] = {}
    registry = SimpleNamespace(
        AttentionBackendEnum=SimpleNamespace(CUSTOM="custom"), register_backend=registered.__setitem__
    )
    monkeypatch.setitem(sys.modules, "vllm.v1.attention.backends.registry", registry)
    getattr(import_module(module), name)()
    place, kind = registered["custom"].rsplit(".", 1)
    found = find_spec(place)
    assert found is not None
    assert found.origin is not None
    assert place not in sys.modules or find_spec("vllm") is not None
    classes = [one.name for one in ast.parse(Path(found.origin).read_text()).body if isinstance(one, ast.ClassDef)]
    assert kind in classes
