"""Counts: the oracle's sum, and the figures of long patterns in no time."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from spattn import oracle
from spattn.errors import SpattnError
from spattn.expressions.nodes import Bool
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.relation.counting import count, row_counts
from tests.strategies import key_ranges, patterns, q_offsets, tensors_for


def condition(text: str) -> Bool:
    return meaning(parse(text))


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_count_is_the_sum_of_the_mask(data: st.DataObject) -> None:
    node = data.draw(patterns(depth=2))
    q_len, kv_len = data.draw(st.integers(0, 70)), data.draw(st.integers(1, 70))
    q_offset = data.draw(q_offsets())
    batch, heads = data.draw(st.sampled_from([(1, 1), (2, 3)]))
    try:
        tensors = data.draw(tensors_for(node, q_len, kv_len, batch, heads))
        mask = oracle.mask(node, q_len, kv_len, q_offset=q_offset, num_heads=heads, batch_size=batch, tensors=tensors)
    except SpattnError:
        reject()
    found = count(meaning(node), q_len, kv_len, tensors, q_offset, heads, batch)
    assert found in (None, mask.sum())
    first, stop = data.draw(key_ranges(kv_len))
    found = count(meaning(node), q_len, kv_len, tensors, q_offset, heads, batch, (first, stop))
    assert found in (None, mask[..., first:stop].sum())


@pytest.mark.parametrize(
    "text",
    [
        "(local(255, 0) | columns([::512])) & causal",
        "fixed(16, 3) & causal - columns([::2])",
        "neighborhood(grid=[9, 11], kernel=[3, 5], border=cut)",
        "neighborhood(grid=[9, 11], kernel=[3, 5], dilation=[2, 1])",
        "where(k - k // 3 <= q // 2)",
        "where(q % 40 < k // 5 + (k + 1) // 7)",
        "global([0, 3, 9, 27, 81, 82, 83, 84, 85, 90, -1]) | last(9)",
        "diagonals([0, 5, 17]) | chunk(13, back=1)",
        "random(2, block=8) - strided(3)",
        "blockwise(7, local(1) | global([0, -1]))",
    ],
)
def test_row_by_row(text: str) -> None:
    found = row_counts(condition(text), 90, 130)
    assert found is not None
    mask = oracle.mask(parse(text), 90, 130).reshape(-1, 90, 130)[0]
    np.testing.assert_array_equal(found, mask.sum(1))


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("(local(255, 0) | columns([::512])) & causal", 20_938_880),
        ("causal", 65536 * 65537 // 2),
        ("chunk(1000) & causal", 65 * 500_500 + 536 * 537 // 2),
        ("local(128) | columns([1, 5, 9, 44, 55, 77, 88, 99, 1000, 40000])", None),
    ],
)
def test_64k_tokens_take_milliseconds(text: str, pairs: int | None) -> None:
    meant = condition(text)
    count(meant, 65536, 65536)
    begin = time.perf_counter()
    found = count(meant, 65536, 65536)
    assert time.perf_counter() - begin < 0.1 * 3  # a third of it on an idle machine
    assert pairs in (None, found)


def test_memory_is_that_of_the_rows_not_of_the_pairs() -> None:
    meant = condition("(local(255, 0) | columns([::512])) & causal")
    length = 2**20
    tracemalloc.start()
    found = count(meant, length, length)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # a window of 256 and, in each of the 512-blocks of rows, the headers before the window
    assert found == length**2 // 1024 + 256 * length - 32640
    assert peak < 40 * 2**20


def test_what_has_no_cuts_is_said_to_have_none() -> None:
    assert count(condition("where(q * k > 3)"), 9, 9) is None
    assert count(condition("where(k % 4 + k > q)"), 9, 9) is None
    assert count(condition("where(q > k // 3 + k % 3)"), 9, 9) is None
