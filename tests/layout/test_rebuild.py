"""The ladder's rung between plan and oracle: masks rebuilt from tiles, for each direction, length and block shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spattn import oracle
from spattn.frontend.meaning import free_names, meaning
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Node
from spattn.layout.ir import Layout
from spattn.layout.planner import plan
from spattn.layout.rebuild import layout_mask
from spattn.layout.tiling import row_tiles
from spattn.relation import affine
from tests.layout.patterns import PICKED, tensors
from tests.strategies import patterns, q_offsets, tensors_for

RUNGS = ("sets", "capped sets", "intervals")
DIRECTIONS = ("queries", "keys")
LENGTHS = ((64, 64), (33, 65), (65, 33), (17, 16), (1, 50), (50, 1), (1, 1), (0, 5), (5, 0))
BLOCKS = ((16, 16), (32, 16), (16, 64))


@contextmanager
def calculus(name: str) -> Iterator[None]:
    """How the planner finds bounds: isl, isl that meets its cap, or the interval calculus alone."""
    with pytest.MonkeyPatch.context() as patch:
        if name == "capped sets":
            patch.setattr(affine.Sets.__init__, "__defaults__", (100,))
        patch.setattr(affine, "available", name != "intervals")
        yield


def check(layout: Layout, node: Node, q_len: int, kv_len: int, block: tuple[int, int], **options: Any) -> None:
    expected = oracle.mask(node, q_len, kv_len, **options)
    rebuilt = layout_mask(layout, q_len, kv_len, block_m=block[0], block_n=block[1], **options)
    np.testing.assert_array_equal(rebuilt, expected)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["strided", "dilated", "two_strides", "heads"])
def test_plans_without_residue_classes_are_rebuilt(name: str, direction: str) -> None:
    node = parse(PICKED[name])
    layout = plan(meaning(node), direction, by_residue=False)
    assert plan(meaning(node), direction).in_classes
    assert not layout.in_classes
    for i, (q_len, kv_len) in enumerate(LENGTHS):
        check(layout, node, q_len, kv_len, BLOCKS[i % 3], num_heads=2, batch_size=1, tensors={})


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", PICKED)
@pytest.mark.parametrize("rung", RUNGS)
def test_picked_patterns_are_rebuilt(rung: str, name: str, direction: str) -> None:
    node = parse(PICKED[name])
    with calculus(rung):
        layout = plan(meaning(node), direction)
    for i, (q_len, kv_len) in enumerate(LENGTHS):
        batch = 1 + i % 2
        for sorted_ids in (True, False) if "ids" in free_names(node) else (True,):
            given_tensors = tensors(node, kv_len, batch, sorted_ids=sorted_ids)
            options = {"num_heads": 2, "batch_size": batch, "tensors": given_tensors}
            check(layout, node, q_len, kv_len, BLOCKS[i % 3], **options)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("q_offset", [0, 7, -5, 40])
def test_offsets_are_exact(direction: str, q_offset: int) -> None:
    for text in ("causal & chunk(10)", "local(4) | global([0, -1])", "strided(8) | last(3)", "random(2, block=8)"):
        node = parse(text)
        check(plan(meaning(node), direction), node, 30, 45, (16, 16), q_offset=q_offset)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("q_offset", [0, 7, -5, 40])
@pytest.mark.parametrize("q_len", [1, 3, 7, 8, 9])
def test_short_calls_have_the_classes_of_their_rows(q_len: int, q_offset: int, direction: str) -> None:
    node = parse("strided(8) & causal | last(3)")
    layout = plan(meaning(node), direction)
    check(layout, node, q_len, 45, (16, 16), q_offset=q_offset)
    for one in layout.passes:
        if one.residues > 1:
            assert row_tiles(one, (q_offset, q_offset + q_len), 0, 16) == min(q_len, one.residues)


FORMS = (
    "ids",
    "segments(cu)",
    "q_ids, ids",
    "q_ids, segments(cu)",
    "segments(q_cu), ids",
    "segments(q_cu), segments(cu)",
)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("text", ["documents({})", "within({}, local(3))", "~within({}, columns([0, -1]))"])
@pytest.mark.parametrize("form", FORMS)
def test_documents_in_each_form_are_rebuilt(form: str, text: str, direction: str) -> None:
    node, random = parse(text.format(form)), np.random.default_rng(3)
    layout = plan(meaning(node), direction)
    for i, (q_len, kv_len, q_offset) in enumerate([(40, 70, None), (70, 40, None), (50, 50, 7), (40, 70, -9)]):
        ids, q_ids = random.integers(-2, 4, kv_len), random.integers(-2, 4, (2, q_len))
        known = {"ids": ids if i else np.sort(ids), "q_ids": q_ids if i > 1 else np.sort(q_ids)}
        known |= {"cu": np.array([3, 9, 9, 30, 38, 38, 38]), "q_cu": np.array([-4, 1, 9, 25, 90])}
        given_tensors = {name: known[name] for name in free_names(node)}
        for block in ((16, 16), (4, 8)):
            check(layout, node, q_len, kv_len, block, q_offset=q_offset, batch_size=2, tensors=given_tensors)


@given(st.data(), patterns(), st.sampled_from(DIRECTIONS), st.sampled_from(BLOCKS), st.sampled_from(RUNGS))
def test_drawn_patterns_are_rebuilt(
    data: st.DataObject, node: Node, direction: str, block: tuple[int, int], rung: str
) -> None:
    q_len, kv_len = data.draw(st.integers(0, 70)), data.draw(st.integers(0, 70))
    q_offset = data.draw(q_offsets())
    drawn = data.draw(tensors_for(node, q_len, kv_len, 2, 2))
    with calculus(rung):
        layout = plan(meaning(node), direction)
    check(layout, node, q_len, kv_len, block, num_heads=2, batch_size=2, tensors=drawn, q_offset=q_offset)


@settings(max_examples=60)
@given(patterns(depth=2), st.data())
def test_a_part_of_the_keys_is_walked_as_the_oracle_has_it(node: Node, data: st.DataObject) -> None:
    q_len, kv_len = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 90))
    first = data.draw(st.integers(0, kv_len))
    count = data.draw(st.integers(0, kv_len - first))
    given_tensors = data.draw(tensors_for(node, q_len, kv_len, 1, 2))
    sizes: dict[str, Any] = {"q_offset": data.draw(q_offsets()), "num_heads": 2, "tensors": given_tensors}
    expected = oracle.mask(node, q_len, kv_len, k_offset=first, num_keys=count, **sizes)
    for direction in DIRECTIONS:
        layout, keys = plan(meaning(node), direction), (first, first + count)
        rebuilt = layout_mask(layout, q_len, kv_len, given=keys, block_m=16, block_n=16, **sizes)
        np.testing.assert_array_equal(rebuilt, expected)
