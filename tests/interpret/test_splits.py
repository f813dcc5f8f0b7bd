"""A tile whose keys several programs share: each does its part, and a kernel combines them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.interpret.test_poison import PATTERNS as POISONED
from tests.interpret.test_poison import poisoned
from tests.kernels import SMALL, check, drawn

pytestmark = [pytest.mark.interpret, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

PATTERNS = (
    "causal",
    "last(40) | strided(8) & causal",
    "(last(20) | columns([::7])) & causal",
    "global([0, 5, -1]) | local(4)",
    "random(2, block=16) | sink(3)",
    "neighborhood(grid=[6, 9], kernel=[3, 5])",
    "heads([0]) & full | heads([1]) & causal",
    "causal - last(30)",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_splits_change_nothing(pattern: str) -> None:
    check(pattern, drawn(33, 54, batch=2, heads=(2, 1), dims=(16, 24)), replace(SMALL, splits=3))


@pytest.mark.parametrize("splits", [2, 7, 64])
def test_a_split_may_have_nothing_to_do(splits: int) -> None:
    check("last(40)", drawn(3, 90, heads=(1, 1)), replace(SMALL, splits=splits))


@pytest.mark.parametrize("name", ["window", "residues", "owners"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_poison_stays_with_the_rows_that_see_it(name: str, poison: float) -> None:
    check(POISONED[name], poisoned(drawn(37, 37), "both", poison), replace(SMALL, splits=3))


def test_half_precision() -> None:
    check("global([0]) | local(9)", drawn(40, 200, dtype=torch.float16), replace(SMALL, splits=4))
