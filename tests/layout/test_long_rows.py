"""Few rows that see nearly all keys have a pass of their own, and no other pass has a range for them."""

from __future__ import annotations

import numpy as np
import pytest

from spattn import oracle
from spattn.expressions.text import text, tokens_text
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.layout.coverage import coverage
from spattn.layout.ir import Layout, Listed
from spattn.layout.planner import plan
from spattn.layout.rebuild import layout_mask
from spattn.relation.lattice import CONTIGUOUS
from tests.layout.test_rebuild import DIRECTIONS, RUNGS, calculus

LENGTH = 65536

# rows that are owned in the forward and in the transposed plan
OWNED = {
    "local(128) | global([0:64]) | random(3)": (["[0:64]"], ["[0:64]"]),
    "local(128) | rows([0:64])": (["[0:64]"], []),
    "local(128) | columns([0:64])": ([], ["[0:64]"]),
    "local(128) | rows([-64:])": (["[-64:]"], []),
    "local(128) | rows([-64:-10])": (["[-64:-10]"], []),
    "local(128) | global([0:64, -64:])": (["[-64:, 0:64]"], ["[-64:, 0:64]"]),
    "local(128) | rows([0:64, 100:164])": (["[0:64, 100:164]"], []),
    "last(256) | tail(64)": (["[-64:]"], []),
    "tri_shape(4, 256, 64)": (["[-64:]"], ["[0:4]"]),
    "streaming_llm": ([], ["[0:4]"]),
    "sink(4) | last(256)": ([], ["[0:4]"]),
    "prefix(100) | last(256)": ([], ["[0:100]"]),
    "strided(128) | global([0:64])": (["[0:64]"], ["[0:64]"]),
    "documents(ids) & causal | rows([0:64])": (["[0:64]"], []),
    # rows that see few keys, or as many as the others, or are many, or all there are
    "causal & (local(128) | rows([0:64]))": ([], []),
    "causal | rows([0:64])": ([], []),
    "prefix(100) | causal": ([], []),
    "rows([0:64]) & documents(ids) | local(9)": ([], []),
    "local(128) | rows([0:4096])": ([], []),
    "tail(64)": ([], []),
    "rows([0:64])": ([], []),
}


def owned(layout: Layout) -> list[str]:
    return [tokens_text(one.rows.tokens) for one in layout.passes if isinstance(one.rows, Listed)]


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("pattern", OWNED)
def test_which_rows_are_owned(pattern: str, rung: str) -> None:
    condition = meaning(parse(pattern))
    with calculus(rung):
        found = tuple(owned(plan(condition, direction)) for direction in DIRECTIONS)
    assert found == OWNED[pattern]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_no_other_tile_is_long(direction: str) -> None:
    for pattern in ("local(128) | global([0:64])", "bigbird()", "sink(4) | last(256)", "last(256) | tail(64)"):
        *_, others = coverage(plan(meaning(parse(pattern)), direction), LENGTH, LENGTH, 64, 64).passes
        assert others.longest < 20


def test_rows_are_skipped_by_comparisons() -> None:
    condition = meaning(parse("local(128) | global([0:64])"))
    skipped = [text(plan(condition, direction).passes[-1].skip) for direction in DIRECTIONS]
    assert skipped == ["0 <= q and q <= 63 and q + 1 <= kv_len", "0 <= q and q <= 63"]


def test_queries_past_the_keys_cost_no_range_where_others_see_as_much() -> None:
    for pattern, ranges in (("local(128) | {}", 1), ("local(8) | {}", 2)):
        *_, others = plan(meaning(parse(pattern.format("where(0 <= q and q < 64)")))).passes
        assert [len(walk.ranges) for walk in others.walks] == [ranges]


@pytest.mark.parametrize("rows", ["rows([0:64])", "tail(64)", "rows([-64:-10])", f"rows({list(range(20))})"])
def test_no_row_of_a_set_is_past_the_keys(rows: str) -> None:
    """They are owned, and the other rows have nothing of them."""
    *_, others = plan(meaning(parse(f"local(8) | {rows}"))).passes
    assert [len(walk.ranges) for walk in others.walks if walk.keys == CONTIGUOUS] == [1]


@pytest.mark.parametrize(
    "pattern", ["rows([10:200:16]) | local(3)", "rows([0:64:2]) | last(9)", "local(3) | rows([5:90:9])"]
)
def test_keys_walk_over_few_rows_with_steps(pattern: str) -> None:
    """Where their ends take isl too long, they are those of all lengths."""
    layout = plan(meaning(parse(pattern)), "keys")
    for one in coverage(layout, LENGTH, LENGTH, 64, 64).passes:
        assert one.longest < 20


OFFSETS = (
    (30, 45, None),
    (30, 10, 40),
    (60, 10, None),
    (60, 10, 0),
    (50, 100, 30),
    (90, 30, -40),
    (40, 17, 5),
    (5, 0, 0),
)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "pattern",
    [
        "local(3) | global([0:64])",
        "local(3) | rows([-20:])",
        "last(5) | tail(20) & causal",
        "blockwise(8, local(1) | global([0, -1]))",
        "local(2) | global([4:30, -9:])",
        "rows([0:20]) & anticausal | local(2)",
        "where(q < 20) | local(4)",
        "rows([-30:-10]) | random(1, block=8)",
    ],
)
def test_queries_outside_of_the_keys_are_exact(pattern: str, direction: str, rung: str) -> None:
    node = parse(pattern)
    with calculus(rung):
        layout = plan(meaning(node), direction)
    for q_len, kv_len, q_offset in OFFSETS:
        expected = oracle.mask(node, q_len, kv_len, q_offset=q_offset)
        rebuilt = layout_mask(layout, q_len, kv_len, q_offset=q_offset, block_m=16, block_n=16)
        np.testing.assert_array_equal(rebuilt, expected)


def test_plans_of_blocks_meet_no_cap() -> None:
    for direction in DIRECTIONS:
        assert plan(meaning(parse("bigbird()")), direction).notes == ()
