"""The gradients of generated kernels in Triton's interpreter against the formulas in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from spattn import oracle
from spattn.codegen.tile import Tile
from spattn.frontend.parser import parse
from tests.gpu.test_accuracy import PATTERNS as LONG
from tests.gpu.test_accuracy import tensors as long_tensors
from tests.interpret.test_addressing import STRIDES, spread_out
from tests.kernels import (
    SMALL,
    check_gradients,
    drawn,
    drawn_upstream,
    expected_gradients,
    gradients,
    mask_of,
)
from tests.layout.patterns import PICKED, tensors

pytestmark = pytest.mark.interpret

# around the edges of tiles of 16: (q_len, kv_len, batch entries)
LENGTHS = ((33, 31, 1), (17, 49, 1), (18, 18, 2), (49, 18, 1), (1, 33, 1))
DTYPES = (torch.float32, torch.float16)


@pytest.mark.parametrize("name", PICKED)
def test_gradients_agree_with_the_formulas(name: str) -> None:
    node, index = parse(PICKED[name]), list(PICKED).index(name)
    q_len, kv_len, batch = LENGTHS[index % len(LENGTHS)]
    options = {"tensors": tensors(node, kv_len, batch), "dtype": DTYPES[index // len(LENGTHS) % 2]}
    check_gradients(node, drawn(q_len, kv_len, batch=batch, heads=(2, 1), **options))


@pytest.mark.parametrize("name", [name for name in LONG if name != "grid"])
def test_long_patterns_cut_short(name: str) -> None:
    options: dict[str, Any] = {"tensors": long_tensors(LONG[name], 70, 1), "dtype": DTYPES[list(LONG).index(name) % 2]}
    check_gradients(LONG[name], drawn(37, 70, heads=(2, 1), dims=(16, 24), **options), Tile(32, 32, 4, 1))


MEDIUM = Tile(32, 16, 4, 1)
TWO_MAPS = "local(9) | columns([::16])"
TWO_PASSES = "last(5) | strided(6)"


@pytest.mark.parametrize("dims", [(16, 16), (24, 24), (64, 32), (24, 72), (1, 3), (128, 128)], ids=str)
def test_head_dimensions(dims: tuple[int, int]) -> None:
    check_gradients(TWO_MAPS, drawn(20, 37, heads=(2, 1), dims=dims))
    check_gradients(TWO_PASSES, drawn(17, 17, heads=(1, 1), dims=dims, dtype=torch.float16))


@pytest.mark.parametrize("heads", [(1, 1), (3, 3), (4, 2), (4, 1)], ids=str)
def test_groups_of_heads(heads: tuple[int, int]) -> None:
    check_gradients(TWO_MAPS, drawn(19, 23, batch=2, heads=heads), MEDIUM)


@pytest.mark.parametrize("heads", [(3, 3), (4, 2), (4, 1)], ids=str)
@pytest.mark.parametrize(
    "pattern",
    [
        "heads([0, -1]) & causal | local(3)",
        "heads([0]) & causal | heads([1:]) & strided(4)",
        "heads([::2]) & local(3)",
        "heads([0:2]) & global([0, 4]) | batch([1]) & causal",
    ],
)
def test_key_heads_are_read_by_heads_of_several_patterns(pattern: str, heads: tuple[int, int]) -> None:
    check_gradients(pattern, drawn(9, 15, batch=2, heads=heads))


def test_tensors_by_head() -> None:
    random = np.random.default_rng(5)
    table, values = random.integers(0, 2, (2, 4, 5, 5)).astype(bool), random.integers(0, 8, (2, 4, 40))
    options = {"batch": 2, "heads": (4, 2)}
    check_gradients("blocks(t, size=8) | last(2)", drawn(18, 40, **options, tensors={"t": table}), MEDIUM)
    check_gradients("where(t[q] > t[k])", drawn(18, 40, **options, tensors={"t": values}), MEDIUM)
    check_gradients("random(2, block=8) & where(q - k < 6 * (h + 1))", drawn(33, 40, heads=(4, 2)), MEDIUM)


@pytest.mark.parametrize("scale", [0.0, -0.3, 1.7])
def test_scales(scale: float) -> None:
    for pattern in ("local(9)", "strided(4) & causal"):
        check_gradients(pattern, drawn(20, 23, scale=scale))


@pytest.mark.parametrize("q_offset", [-5, 40, -60])
def test_offsets(q_offset: int) -> None:
    for pattern in (
        "causal & chunk(10)",
        "local(4) | global([0, -1])",
        TWO_PASSES,
        "random(2, block=8, past=true) | sink(3)",
        "documents(ids) & causal",
        "fixed(8, 2)",
        "blocks(table, size=8)",
        "neighborhood(grid=[5, 9], kernel=[3, 5])",
    ):
        given: dict[str, Any] = {"ids": np.arange(45) // 9} if "ids" in pattern else {}
        given |= {"table": np.tri(5, 6).astype(bool)} if "table" in pattern else {}
        check_gradients(pattern, drawn(30, 45, heads=(1, 1), q_offset=q_offset, tensors=given), MEDIUM)


@pytest.mark.parametrize(
    "pattern",
    [
        "causal",
        "last(40) | strided(8) & causal",
        "global([0, 5, -1]) | local(4)",
        "random(2, block=16) | sink(3)",
        "heads([0]) & full | heads([1]) & causal",
        "neighborhood(grid=[3, 9], kernel=[3, 5])",
    ],
)
def test_splits_change_nothing(pattern: str) -> None:
    check_gradients(pattern, drawn(33, 54, heads=(2, 1), dims=(16, 24)), replace(SMALL, splits=3))


def test_a_split_may_have_nothing_to_do() -> None:
    check_gradients("last(40)", drawn(3, 50, heads=(1, 1)), replace(SMALL, splits=7))


@pytest.mark.parametrize("tile", [Tile(32, 16, 4, 1), Tile(16, 64, 4, 1), None], ids=str)
def test_tiles_do_not_matter(tile: Tile | None) -> None:
    for pattern in (TWO_MAPS, "fixed(8, 2) & causal", "local(3) | random(2, block=24)", "global([1, 9])"):
        check_gradients(pattern, drawn(45, 70, heads=(1, 1)), tile)


@pytest.mark.parametrize("lengths", [(0, 5, 1), (5, 0, 1), (5, 9, 0)], ids=str)
@pytest.mark.parametrize("pattern", ["causal", TWO_PASSES, "random(1)", "global([0]) | last(2)", "heads([0]) & causal"])
def test_nothing_has_no_gradients(pattern: str, lengths: tuple[int, int, int]) -> None:
    q_len, kv_len, batch = lengths
    given = drawn(q_len, kv_len, batch=batch)
    for found, own in zip(gradients(pattern, given, drawn_upstream(given)), (given.q, given.k, given.v), strict=True):
        assert found.shape == own.shape
        assert (found == 0).all()


def test_rows_without_keys_and_keys_without_rows_have_zero_gradients() -> None:
    for pattern in (
        "columns([40:]) & causal",
        "none",
        "chunk(16, back=1) & causal - chunk(16)",
        "last(3) - rows([::5])",
    ):
        given = drawn(40, 48)
        mask = mask_of(pattern, given)
        dq, dk, dv = gradients(pattern, given, drawn_upstream(given))
        rows, keys = ~mask.any(-1), ~mask.any(-2)
        assert rows.any()
        assert (dq[rows] == 0).all()
        assert (dk[keys] == 0).all()
        assert (dv[keys] == 0).all()


def test_without_a_gradient_of_lse() -> None:
    check_gradients(TWO_MAPS, drawn(33, 40, heads=(4, 2)), with_lse=False)


def test_the_formulas_are_autograd_s() -> None:
    """The reference stands on torch's own derivatives of the oracle."""
    given = drawn(12, 12, heads=(4, 2), dims=(8, 5))
    upstream, mask = drawn_upstream(given), mask_of("last(4)", given)
    q, k, v = (x.double().requires_grad_() for x in (given.q, given.k, given.v))
    results = oracle.attention(q, k, v, mask)
    assert upstream.d_lse is not None
    wanted = torch.autograd.grad(results, (q, k, v), (upstream.d_out.double(), upstream.d_lse.double()))
    for mine, theirs in zip(expected_gradients("last(4)", given, upstream), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("axis", STRIDES)
def test_offsets_are_of_64_bits(axis: str) -> None:
    given = drawn(18, 40, batch=2, heads=(2, 2), dtype=torch.float16)
    strides = (2 * 40 * STRIDES[axis][2], *STRIDES[axis][1:]) if axis == "tokens" else STRIDES[axis]
    far = replace(given, **{name: spread_out(getattr(given, name), strides) for name in ("q", "k", "v")})
    check_gradients("columns([::7]) | last(2)", far, MEDIUM)
