"""Gradients where values are inf or NaN: they spread to the pairs that are allowed to meet them and no further."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from spattn.frontend.parser import parse
from tests.interpret.test_poison import KEYS, PATTERNS, poisoned
from tests.kernels import SMALL, drawn, drawn_upstream, expected_gradients, gradients, mask_of
from tests.layout.patterns import tensors

# NumPy, which interprets, warns about the arithmetic that is asked for here
pytestmark = [pytest.mark.interpret, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

POISON = (float("nan"), float("inf"), -float("inf"))


@pytest.mark.parametrize("name", PATTERNS)
def test_keys_that_a_row_may_not_see_do_not_touch_its_gradients(name: str) -> None:
    """dq of rows that see no poison, dk and dv of keys that only such rows see, keep their bits."""
    pattern, index = PATTERNS[name], list(PATTERNS).index(name)
    side, poison = ("k", "v", "both")[index % 3], POISON[(index // 3 + index) % 3]
    dtype = (torch.float32, torch.float16)[index % 2]
    given = drawn(40, 43, heads=(1, 1), dtype=dtype, tensors=tensors(parse(pattern), 43))
    bad, upstream, mask = poisoned(given, side, poison), drawn_upstream(given), mask_of(pattern, given)
    safe = ~mask[..., KEYS].any(-1)
    spared = ~(mask & ~safe[..., None]).any(-2).any(1, keepdim=True)
    assert safe.any()
    clean, found = gradients(pattern, given, upstream), gradients(pattern, bad, upstream)
    assert torch.equal(found[0][safe], clean[0][safe])
    for mine, other in zip(found[1:], clean[1:], strict=True):
        assert torch.equal(mine[spared], other[spared])
    tolerance = 2e-4 if dtype == torch.float32 else 5e-2
    for mine, wanted in zip(found, expected_gradients(pattern, bad, upstream, mask), strict=True):
        sound = wanted.isfinite()
        assert not mine[~sound].isfinite().any()
        torch.testing.assert_close(mine[sound].double(), wanted[sound], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("what", ["q", "d_out"])
def test_poisoned_queries_touch_only_keys_that_they_see(what: str) -> None:
    for pattern in ("last(5)", "strided(5) & causal | last(4)", "local(4) | global([0, 1, -1])"):
        given = drawn(37, 40, heads=(1, 1))
        upstream, mask = drawn_upstream(given), mask_of(pattern, given)
        rows = torch.tensor([7, 20])
        bad = replace(given, q=given.q.index_fill(2, rows, torch.nan)) if what == "q" else given
        worse = replace(upstream, d_out=upstream.d_out.index_fill(2, rows, torch.inf)) if what == "d_out" else upstream
        spared = ~mask[:, :, rows].any(-2).any(1, keepdim=True)
        clean, found = gradients(pattern, given, upstream), gradients(pattern, bad, worse)
        for mine, other in zip(found[1:], clean[1:], strict=True):
            assert torch.equal(mine[spared], other[spared])
            assert not mine[~spared].isfinite().all()
        others = torch.ones(37, dtype=torch.bool).index_fill(0, rows, False)
        assert torch.equal(found[0][:, :, others], clean[0][:, :, others])


def test_splits_spread_no_poison() -> None:
    tile = replace(SMALL, splits=3)
    for pattern in ("last(5) - columns([9, 21, 33])", "local(4) | global([0, 1, -1])"):
        given = drawn(40, 43, heads=(1, 1))
        bad, upstream, mask = poisoned(given, "both", torch.nan), drawn_upstream(given), mask_of(pattern, given)
        safe = ~mask[..., KEYS].any(-1)
        clean, found = gradients(pattern, given, upstream, tile), gradients(pattern, bad, upstream, tile)
        assert torch.equal(found[0][safe], clean[0][safe])


@pytest.mark.parametrize("poison", POISON)
def test_what_no_row_sees_has_exactly_zero_gradients(poison: float) -> None:
    pattern = "last(5) - columns([9, 21, 33])"
    given = drawn(43, 43, heads=(4, 2))
    _, dk, dv = gradients(pattern, poisoned(given, "both", poison), drawn_upstream(given))
    assert (dk[:, :, KEYS] == 0).all()
    assert (dv[:, :, KEYS] == 0).all()
    assert dk.isfinite().all()
    assert dv.isfinite().all()
