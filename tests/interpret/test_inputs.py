"""What a call may bring: dtypes, groups of heads, head dimensions, strides, scales, offsets, tensors with a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spattn.codegen.tile import Tile
from tests.kernels import SMALL, Inputs, check, drawn, run

pytestmark = pytest.mark.interpret

TWO_MAPS = "local(9) | columns([::16])"
TWO_PASSES = "last(5) | strided(6)"
DTYPES = (torch.float32, torch.float16)
DIMS = ((16, 16), (32, 32), (64, 64), (80, 80), (96, 96), (128, 128), (24, 24), (40, 40), (24, 72), (72, 8), (1, 3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", DIMS, ids=str)
def test_head_dimensions(dims: tuple[int, int], dtype: torch.dtype) -> None:
    check(TWO_MAPS, drawn(20, 37, heads=(2, 1), dims=dims, dtype=dtype))
    check(TWO_PASSES, drawn(17, 17, heads=(1, 1), dims=dims, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [(1, 1), (3, 3), (2, 1), (4, 2), (4, 1), (6, 2)], ids=str)
def test_groups_of_heads(heads: tuple[int, int], dtype: torch.dtype) -> None:
    check(TWO_MAPS, drawn(19, 23, batch=2, heads=heads, dtype=dtype))
    check("heads([0, -1]) & causal | local(3)", drawn(19, 23, heads=heads, dtype=dtype))


STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "[batch, seq, heads, dim]": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "[seq, batch, heads, dim]": lambda x: x.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3),
    "head_dim of a wider row": lambda x: torch.cat([torch.full_like(x, torch.nan), x], -1)[..., x.shape[-1] :],
    "odd storage offset": lambda x: torch.cat([torch.full_like(x[..., :3], torch.nan), x], -1)[..., 3:],
    "each second token": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "one head for all": lambda x: x[:, :1].expand_as(x),
    "one entry for all": lambda x: x[:1].expand_as(x),
    "one token for all": lambda x: x[:, :, :1].expand_as(x),
}


@pytest.mark.parametrize("name", STRIDES)
def test_strides_are_free(name: str) -> None:
    change = STRIDES[name]
    for pattern in (TWO_MAPS, "global([0, 7, -1]) | last(4)", "random(1, block=8)"):
        given = drawn(21, 34, batch=2, heads=(2, 2), dims=(24, 16))
        if change(given.q).shape != given.q.shape or given.q.numel() == 0:
            raise AssertionError(name)
        check(pattern, replace(given, q=change(given.q), k=change(given.k), v=change(given.v)))


def test_q_k_v_are_parts_of_one_tensor() -> None:
    fused = torch.randn(2, 33, 3, 2, 16, generator=torch.Generator().manual_seed(0))
    q, k, v = fused.permute(2, 0, 3, 1, 4)
    check(TWO_MAPS, Inputs(q, k, v))


@pytest.mark.parametrize("scale", [0.0, -0.3, 1.0, 7.5])
def test_scales(scale: float) -> None:
    for pattern in ("local(9)", TWO_PASSES, "strided(4) & causal"):
        check(pattern, drawn(20, 33, scale=scale))


@pytest.mark.parametrize("q_offset", [0, 7, -5, 40, -60])
def test_offsets(q_offset: int) -> None:
    for pattern in (
        "causal & chunk(10)",
        "local(4) | global([0, -1])",
        TWO_PASSES,
        "random(2, block=8)",
        "documents(ids) & causal",
        "fixed(8, 2)",
        "blocks(table, size=8)",
    ):
        tensors: dict[str, Any] = {"ids": np.arange(45) // 9} if "ids" in pattern else {}
        tensors |= {"table": np.tri(5, 6).astype(bool)} if "table" in pattern else {}
        check(pattern, drawn(30, 45, heads=(1, 1), q_offset=q_offset, tensors=tensors))


def by_batch(kv_len: int) -> dict[str, tuple[str, dict[str, Any]]]:
    random = np.random.default_rng(5)
    ids = np.sort(random.integers(0, 5, (2, kv_len)))
    return {
        "documents": ("documents(ids) & causal", {"ids": ids}),
        "documents in any order": ("documents(ids) | last(3)", {"ids": random.integers(0, 3, (2, kv_len))}),
        "positions in documents": ("within(ids, sink(2) | last(5))", {"ids": ids}),
        "segments": ("documents(segments(cu)) & local(9)", {"cu": np.array([3, 5, 5, 29, kv_len, kv_len])}),
        "two sides": ("documents(x, ids)", {"x": random.integers(0, 5, (2, 33)), "ids": ids}),
        "positions on two sides": ("within(x, ids, last(5))", {"x": np.arange(33) // 7, "ids": ids}),
        "a list beside segments": (
            "documents(x, segments(y))",
            {"x": np.arange(33) // 9 - 1, "y": np.array([2, 9, 9, 30])},
        ),
        "two types": (
            "documents(x, ids)",
            {"x": np.repeat(np.int8([-1, 3, -1]), 11), "ids": np.repeat(np.uint8([255, 3]), 20)},
        ),
        "lengths": ("valid(n) & local(9)", {"n": np.array([kv_len - 9, 3])}),
        "tokens": ("global(g) | last(4)", {"g": np.array([[0, 3, 3, -1], [7, 99, -99, 8]])}),
        "tables": ("blocks(t, size=8) & causal", {"t": random.integers(0, 2, (2, 1, 5, 5)).astype(bool)}),
        "tables by head": ("blocks(t, size=8)", {"t": random.integers(0, 2, (2, 2, 5, 5)).astype(bool)}),
        "tables of all heads": ("blocks(t, size=8) | last(2)", {"t": random.integers(0, 2, (1, 2, 5, 5)).astype(bool)}),
        "lists": ("where(t[k] > 3) | last(2)", {"t": random.integers(0, 8, (2, kv_len))}),
        "lists by head": ("where(t[q] > t[k])", {"t": random.integers(0, 8, (2, 2, kv_len))}),
        "the entry itself": ("batch([1]) & causal | local(2)", {}),
    }


@pytest.mark.parametrize("name", by_batch(40))
def test_tensors_with_a_batch(name: str) -> None:
    pattern, tensors = by_batch(40)[name]
    check(pattern, drawn(33, 40, batch=2, tensors=tensors))


def test_tensors_of_a_pattern_have_strides_of_their_own() -> None:
    table = torch.randint(0, 2, (10, 10, 2), generator=torch.Generator().manual_seed(0)).bool()[::2, :5, 0].T
    assert not table.is_contiguous()
    check("blocks(t, size=8)", drawn(33, 40, tensors={"t": table}))
    check("where(t[q] > t[k])", drawn(33, 40, tensors={"t": torch.arange(80).remainder(7)[::2]}))
    check(
        "documents(ids)",
        drawn(33, 40, tensors={"ids": torch.arange(80, dtype=torch.int16).div(30).to(torch.int8)[::2]}),
    )


@pytest.mark.parametrize(
    "pattern",
    [
        "heads([0]) & causal | heads([1:]) & strided(4)",
        "heads([::2]) & local(3)",
        "where(q - k < 4 * (h + 1)) & causal",
        "local(4) & where((k + h) % 3 == b)",
    ],
)
def test_heads_may_differ(pattern: str) -> None:
    check(pattern, drawn(25, 37, batch=2, heads=(4, 2)))


def test_a_batch_without_entries() -> None:
    for pattern in ("causal", TWO_PASSES, "random(1)", "global([0]) | last(2)", "heads([0]) & causal"):
        out, lse = run(pattern, drawn(5, 9, batch=0))
        assert out.shape == (0, 2, 5, 16)
        assert lse.shape == (0, 2, 5)


@pytest.mark.parametrize("tile", [Tile(32, 16, 4, 1), Tile(16, 64, 4, 1), Tile(64, 32, 4, 1), None], ids=str)
def test_tiles_do_not_matter(tile: Tile | None) -> None:
    for pattern in (TWO_MAPS, TWO_PASSES, "fixed(8, 2) & causal", "local(3) | random(2, block=24)", "global([1, 9])"):
        given = drawn(45, 70, heads=(1, 1))
        check(pattern, given, tile)
        for mine, other in zip(run(pattern, given, tile), run(pattern, given, SMALL), strict=True):
            torch.testing.assert_close(mine, other, atol=2e-6, rtol=2e-6)
