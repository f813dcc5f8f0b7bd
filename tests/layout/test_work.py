"""The work of plans at 64k tokens: pairs in visited tiles over pairs allowed, against the figures of a probe.

Documents of the probe end at 93 places, drawn with NumPy's seed 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spattn.frontend.meaning import free_names, meaning
from spattn.frontend.parser import parse
from spattn.layout.counting import count
from spattn.layout.coverage import coverage
from spattn.layout.planner import plan

LENGTH = 65536
GRID = "neighborhood(grid=[128, 128], kernel=[13, 13]"  # fills 16k tokens

# of the probe: tiles of 128 x 128, and of 64 x 64; then ours, forward and transposed
PROBED = {
    "causal": (1.00, 1.00),
    "local(128)": (1.49, 1.24),
    "last(1024)": (1.12, 1.06),
    "last(512, dilation=4)": (1.25, 1.12),
    "strided(128) & causal | last(128)": (1.50, 1.25),
    "columns([::512]) & causal | last(256)": (1.60, 1.30),
    "local(128) | global([0, 7, 5000])": (2.43, 1.70),
    "chunk(1000) & causal": (1.37, 1.17),
    "fixed(128, 8) & causal": (1.06, 1.03),
    "causal - columns([::2])": (1.00, 1.00),
    "prefix(100) | causal": (1.00, 1.00),
    "causal & ~last(64)": (1.00, 1.00),
    f"{GRID}, border=cut)": (4.6, 4.3),
    f"{GRID})": (4.4, 4.3),
    "blockwise(64, local(1) | global([0, -1]))": (1.71, 1.00),
    "random(3, block=64) | local(64)": (1.60, 1.20),
    "documents(ids) & causal & last(512)": (1.44, 1.22),
    "documents(ids) & (last(512, dilation=4) | columns([::256]) & causal)": (2.72, 1.84),
    "columns([::64]) & causal | last(64)": (1.45, 1.17),
    "diagonals([0, 7, 64]) & causal": (85.3, 42.7),
    "last(256) | strided(64) & causal | columns([::1024]) & causal | global([0])": (1.69, 1.32),
    "sink(4) & causal | last(256)": (1.97, 1.48),
    "rows([::512]) | last(64)": (2.00, 1.33),
    "tail(100) & causal | last(64)": (2.34, 1.56),
}


def documents() -> np.ndarray[Any, Any]:
    random = np.random.default_rng(0)
    cuts = np.sort(random.choice(np.arange(1, LENGTH), LENGTH // 700, replace=False))
    return np.searchsorted(cuts, np.arange(LENGTH), side="right")


def ratios(text: str, direction: str) -> list[float]:
    node = parse(text)
    length = 16384 if text.startswith(GRID) else LENGTH
    tensors = {name: documents() for name in free_names(node)}
    pairs = count(meaning(node), length, length, tensors)
    layout = plan(meaning(node), direction)
    return [coverage(layout, length, length, n, n, tensors=tensors).total.pairs / pairs for n in (128, 64)]


@pytest.mark.parametrize("direction", ["queries", "keys"])
@pytest.mark.parametrize("text", PROBED)
def test_work_is_that_of_the_probe(text: str, direction: str) -> None:
    for ratio, probed in zip(ratios(text, direction), PROBED[text], strict=True):
        assert ratio < 1.05 * probed + 0.005
