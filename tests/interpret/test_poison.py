"""Keys that a row may not see never matter, NaN and inf included, even where other rows of its tile see them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from spattn.frontend.parser import parse
from tests.kernels import Inputs, drawn, expected, mask_of, run
from tests.layout.patterns import tensors

# NumPy, which interprets, warns about the arithmetic that is asked for here
pytestmark = [pytest.mark.interpret, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

KEYS = torch.tensor([9, 21, 33])
PATTERNS = {
    "dense": "causal",
    "window": "last(5) - columns([9, 21, 33])",
    "window that sees them": "local(6)",
    "runs": "fixed(8, 2) & causal",
    "residues": "strided(5) & causal | last(4)",
    "columns": "columns([::3]) & causal | last(2)",
    "owners": "local(4) | global([0, 1, -1])",
    "blocks": "random(1, block=8) | local(2)",
    "table": "blocks(table, size=8) & causal",
    "segments": "documents(ids) & causal",
    "difference": "anticausal - local(2)",
    "heads": "heads([0]) & local(3) | heads([1]) & causal",
}


def poisoned(given: Inputs, side: str, poison: float) -> Inputs:
    k = given.k if side == "v" else given.k.index_fill(2, KEYS, poison)
    return replace(given, k=k, v=given.v if side == "k" else given.v.index_fill(2, KEYS, poison))


@pytest.mark.parametrize("side", ["k", "v", "both"])
@pytest.mark.parametrize("name", PATTERNS)
def test_rows_that_may_not_see_a_key_keep_their_bits(name: str, side: str) -> None:
    pattern = PATTERNS[name]
    index = 3 * list(PATTERNS).index(name) + ["k", "v", "both"].index(side)
    poison = [float("nan"), float("inf"), -float("inf")][(index + index // 3) % 3]
    dtype = [torch.float32, torch.float16][index // 2 % 2]
    given = drawn(40, 43, heads=(2, 1), dtype=dtype, tensors=tensors(parse(pattern), 43))
    bad = poisoned(given, side, poison)
    mask = mask_of(pattern, given)
    safe = ~mask[..., KEYS].any(-1)
    assert safe.any()
    clean, found = run(pattern, given), run(pattern, bad)
    for mine, other in zip(found, clean, strict=True):
        assert torch.equal(mine[safe], other[safe])
    wanted, _ = expected(pattern, bad, mask)
    tolerance = 5e-6 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(found[0].double(), wanted, atol=tolerance, rtol=tolerance, equal_nan=True)


def test_an_infinite_value_among_finite_ones_is_infinite_in_its_column_alone() -> None:
    given = drawn(20, 20)
    v = given.v.clone()
    v[:, :, 5, 3], v[:, :, 6, 4], v[:, :, 6, 5] = float("inf"), -float("inf"), float("nan")
    bad = replace(given, v=v)
    out, lse = run("local(2)", bad)
    wanted, wanted_lse = expected("local(2)", bad)
    torch.testing.assert_close(out.double(), wanted, atol=5e-6, rtol=5e-6, equal_nan=True)
    torch.testing.assert_close(lse.double(), wanted_lse, atol=5e-6, rtol=5e-6)
