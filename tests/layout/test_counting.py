"""Counts by the layout's visits, for what has no cuts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from spattn import oracle
from spattn.errors import SpattnError
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.layout.counting import count, count_by_layout, density
from spattn.relation import counting
from tests.strategies import key_ranges, patterns, q_offsets, tensors_for


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_visits_count_what_the_mask_counts(data: st.DataObject) -> None:
    node = data.draw(patterns(depth=2))
    q_len, kv_len = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 150))
    q_offset = data.draw(q_offsets())
    batch, heads = data.draw(st.sampled_from([(1, 1), (2, 2)]))
    try:
        tensors = data.draw(tensors_for(node, q_len, kv_len, batch, heads))
        mask = oracle.mask(node, q_len, kv_len, q_offset=q_offset, num_heads=heads, batch_size=batch, tensors=tensors)
    except SpattnError:
        reject()
    call = (tensors, q_offset, heads, batch)
    assert count_by_layout(meaning(node), q_len, kv_len, *call) == mask.sum()
    assert density(meaning(node), q_len, kv_len, *call) == mask.mean()
    first, stop = data.draw(key_ranges(kv_len))
    assert count_by_layout(meaning(node), q_len, kv_len, *call, (first, stop)) == mask[..., first:stop].sum()
    if first < stop:
        assert density(meaning(node), q_len, kv_len, *call, (first, stop)) == mask[..., first:stop].mean()


@pytest.mark.parametrize("text", ["last(200) & where(t[k] > t[q])", "documents(t) & last(300)"])
def test_data_that_no_formula_sees(text: str) -> None:
    node, length = parse(text), 3000
    tensors = {"t": np.random.default_rng(0).integers(0, 5, length)}
    assert counting.count(meaning(node), length, length, tensors) is None
    mask = oracle.mask(node, length, length, tensors=tensors)
    assert count(meaning(node), length, length, tensors) == mask.sum()
