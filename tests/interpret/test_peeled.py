"""Partial tiles peeled off into a loop of their own: each tile is still seen once, and full ones need no mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spattn.codegen.tile import Tile
from tests.interpret.test_poison import PATTERNS as POISONED
from tests.interpret.test_poison import poisoned
from tests.kernels import PEELED, SPLIT, check, check_gradients, drawn

pytestmark = [pytest.mark.interpret, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

TABLE = np.random.default_rng(0).random((1, 2, 4, 6)) < 0.6
IDS = np.repeat(np.arange(5), [40, 3, 60, 1, 70])
PATTERNS: dict[str, tuple[str, dict[str, Any]]] = {
    "window": ("last(50)", {}),
    "dense": ("causal", {}),
    "everything": ("full", {}),
    "dilated": ("last(40, dilation=3)", {}),
    "listed": ("last(60) | columns([3, 50, 51])", {}),
    "documents": ("documents(ids) & causal", {"ids": IDS}),
    "blocks": ("blocks(t, size=32)", {"t": TABLE}),
    "odd blocks": ("blocks(t, size=24)", {"t": TABLE}),
}


@pytest.mark.parametrize(("lengths", "tile"), [((96, 174), PEELED), ((128, 128), SPLIT), ((5, 174), SPLIT)], ids=str)
@pytest.mark.parametrize("name", PATTERNS)
def test_peeling_changes_nothing(name: str, lengths: tuple[int, int], tile: Tile) -> None:
    pattern, tensors = PATTERNS[name]
    given = {key: value[: lengths[1]] if key == "ids" else value for key, value in tensors.items()}
    check(pattern, drawn(*lengths, heads=(2, 1), tensors=given), tile)


@pytest.mark.parametrize("name", ["window", "dense", "documents", "blocks"])
def test_gradients(name: str) -> None:
    pattern, tensors = PATTERNS[name]
    check_gradients(pattern, drawn(96, 174, heads=(2, 1), tensors=tensors), PEELED)


@pytest.mark.parametrize("name", ["window", "owners"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_poison_stays_with_the_rows_that_see_it(name: str, poison: float) -> None:
    check(POISONED[name], poisoned(drawn(80, 80), "both", poison), PEELED)
