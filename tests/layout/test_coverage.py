"""The work of a layout against figures counted by hand, and against the pairs of the mask."""

from __future__ import annotations

import pytest

from spattn import oracle
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.layout.coverage import Coverage, coverage
from spattn.layout.ir import Layout
from spattn.layout.planner import plan
from tests.layout.patterns import PICKED, tensors


def layout_of(text: str) -> Layout:
    return plan(meaning(parse(text)))


def test_causal_is_a_triangle_of_tiles() -> None:
    found = coverage(layout_of("causal"), 1024, 1024, 64, 64)
    assert found.total == Coverage(row_tiles=16, full=120, partial=16, pairs=136 * 64 * 64, longest=16)


def test_strided_columns_are_a_short_dense_walk() -> None:
    found = coverage(layout_of("columns([::512])"), 65536, 65536, 128, 128)
    assert found.total == Coverage(row_tiles=512, full=512, partial=0, pairs=65536 * 128, longest=1)


def test_heads_that_differ_are_summed() -> None:
    text = "heads([0]) & causal | heads([1]) & local(8)"
    one = coverage(layout_of("causal"), 256, 256, 64, 64)
    found = coverage(layout_of(text), 256, 256, 64, 64, num_heads=2)
    assert found.calls == 2
    assert found.total.pairs >= one.total.pairs


def test_nothing_is_computed_for_nothing() -> None:
    assert coverage(layout_of("random(1)"), 0, 0, 64, 64, num_heads=0).total == Coverage()
    assert coverage(layout_of("none"), 128, 128, 64, 64).total.pairs == 0


@pytest.mark.parametrize("name", PICKED)
def test_all_allowed_pairs_are_computed(name: str) -> None:
    node = parse(PICKED[name])
    given = tensors(node, 70)
    found = coverage(plan(meaning(node)), 64, 70, 16, 16, num_heads=2, tensors=given)
    mask = oracle.mask(node, 64, 70, num_heads=2, tensors=given)
    served = mask.size // (64 * 70) / found.calls  # heads that one call stands for
    assert found.total.pairs * served >= mask.sum()


def test_tiles_are_counted_from_the_first_key_that_is_given() -> None:
    at = {"q_offset": 0, "given": (37, 165)}
    assert coverage(layout_of("full"), 64, 1000, 64, 64, **at).total == Coverage(1, 2, 0, 2 * 64 * 64, 2)
    own = coverage(layout_of("causal"), 1024, 4096, 64, 64, q_offset=1000, given=(1000, 2024))
    assert own == coverage(layout_of("causal"), 1024, 1024, 64, 64)
    later = coverage(layout_of("causal"), 1024, 4096, 64, 64, q_offset=1000, given=(2024, 3048))
    assert later.total.full == later.total.partial == 0


@pytest.mark.parametrize("name", PICKED)
def test_all_allowed_pairs_of_some_keys_are_computed(name: str) -> None:
    node = parse(PICKED[name])
    reads = tensors(node, 70)
    found = coverage(plan(meaning(node)), 64, 70, 16, 16, given=(19, 58), num_heads=2, tensors=reads)
    whole = coverage(plan(meaning(node)), 64, 70, 16, 16, num_heads=2, tensors=reads)
    mask = oracle.mask(node, 64, 70, num_heads=2, tensors=reads)[..., 19:58]
    served = mask.size // (64 * 39) / found.calls
    assert whole.total.pairs >= found.total.pairs
    assert found.total.pairs * served >= mask.sum()
