"""Explanations and remarks, beside the oracle."""

from __future__ import annotations

import json

import numpy as np
import pytest

import spattn
from spattn import oracle
from spattn.analysis.explanation import Explanation
from spattn.analysis.remarks import remarks
from spattn.analysis.samples import sample_tensors
from spattn.errors import ArgumentError
from spattn.frontend.parser import parse as parse_node
from spattn.pattern import parse

PATTERNS = (
    "full",
    "none",
    "local(20) | global([0, 7])",
    "strided(16) | last(8)",
    "documents(ids) & causal",
    "within(ids, last(20))",
    "valid(lengths) & causal",
    "blocks(table, size=16)",
    "columns(tokens) | last(4)",
    "diagonals(offsets) & causal",
    "where(t[q] <= u[k])",
    "where(k < n)",
    "where(m[q, k] == 1)",
    "random(2, block=16) | last(4)",
    "heads([0]) & causal | heads([1:4]) & last(8)",
    "neighborhood(grid=[10, 20], kernel=5)",
    "where((q * k) % 7 == 1)",
)


def explain(pattern: str, *lengths: int, **sizes: int) -> Explanation:
    return spattn.compile(pattern).explain(*lengths, **sizes)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pairs_are_the_oracle_s(pattern):
    parsed = parse(pattern)
    found = explain(pattern, 150, 200, num_heads=4, batch_size=2, head_dim=16)
    tensors = sample_tensors(parsed.condition, parsed.free_names, 200)
    mask = oracle.mask(parsed.syntax, 150, 200, num_heads=4, batch_size=2, tensors=tensors)
    whole = np.broadcast_to(mask, (2, 4, 150, 200))
    assert found.pairs == whole.sum()
    assert found.density == pytest.approx(whole.mean())
    assert found.flops == 64 * whole.sum()
    assert found.computed is None or found.computed >= 1.0
    assert found.sampled == bool(parsed.free_names)
    assert sum(group.members for group in found.groups) == 8


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_can_be_said_and_sent(pattern):
    found = explain(pattern, 100)
    assert f"pattern     {found.pattern}\n" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["pattern"] == found.pattern


def test_attention_explains_itself():
    attn = spattn.compile("documents(ids) & causal")
    found = attn.explain(64, ids=np.zeros(64, np.int64))
    assert found.pairs == 64 * 65 // 2
    assert not found.sampled
    assert found == found
    assert attn.explain(64).sampled


def test_tiles():
    found = explain("causal", 256, head_dim=64)
    [group] = found.groups
    [one] = group.passes
    tiling = one.tiling
    assert (tiling.block_m, tiling.block_n) == (64, 64)
    assert (tiling.programs, tiling.full, tiling.partial, tiling.longest) == (4, 6, 4, 4)
    assert found.computed == pytest.approx(10 * 64 * 64 / found.pairs)


def test_costs():
    found = explain("last(1024)", 16384, num_heads=16)
    [one] = found.groups[0].passes
    cost = one.cost
    assert cost.candidates[0].tile == cost.tile
    assert cost.candidates[0].microseconds == cost.microseconds == found.microseconds
    assert 200 < cost.microseconds < 600
    assert cost.launches == found.launches == 2
    assert cost.programs == 16 * 256
    assert cost.flops == 4 * 128 * cost.pairs
    assert cost.pairs >= found.pairs
    assert len(cost.candidates) == 4
    text = str(found)
    assert f"on one {found.device}" in text
    assert f"      why: {cost.reason}\n" in text


def test_few_programs_share_their_keys():
    first, _ = explain("local(128) | global([0, 7])", 65536, num_heads=16, head_dim=64).groups[0].passes
    assert first.cost.splits > 1
    assert "16 programs alone" in first.cost.reason


@pytest.mark.parametrize(("length", "classes"), [(512, False), (65536, True)])
def test_the_plan_that_is_not_taken_is_told(length, classes):
    found = explain("strided(1024) & causal", length, num_heads=16)
    [group] = found.groups
    assert group.other is not None
    assert group.other.classes != classes
    assert group.other.microseconds > found.microseconds
    assert ("for each residue c" in str(found)) == classes
    assert "not taken: " in str(found)


def test_a_pass_that_is_not_launched_costs_nothing():
    found = explain("neighborhood(grid=[64, 64], kernel=[5, 5])", 4096)
    _, left = found.groups[0].passes
    assert left.cost is None
    assert "not launched" in str(found)


def test_data_that_is_known_is_counted():
    ids = np.arange(8192) // 256
    short = spattn.compile("documents(ids) & causal").explain(8192, num_heads=16, ids=ids)
    long = spattn.compile("documents(ids) & causal").explain(8192, num_heads=16, ids=ids * 0)
    assert long.microseconds > 4 * short.microseconds
    table = np.zeros((64, 64), np.int64)
    table[:, :2] = 1
    few = spattn.compile("blocks(t, size=128)").explain(8192, num_heads=16, t=table)
    all_ = spattn.compile("blocks(t, size=128)").explain(8192, num_heads=16, t=table * 0 + 1)
    assert all_.microseconds > 10 * few.microseconds


def test_what_adds_nothing_is_named():
    found = explain("local(8) | last(4) | columns([0])", 64)
    assert found.dead_terms == ("last(4)",)


def test_rows_without_keys_are_named():
    assert explain("causal & ~last(2)", 64).empty_row == "row 0 of 1 has no key"


@pytest.mark.parametrize(
    ("pattern", "codes"),
    [
        ("causal & ~causal", ["W001"]),
        ("none", ["W001"]),
        ("full", ["W002"]),
        ("causal | anticausal", ["W002"]),
        ("log_sparse", ["W003"]),
        ("where(q * k % 61 == 1)", ["W003"]),
        ("local(8)", []),
        ("last(4, dilation=64)", []),
        ("columns([::512])", []),
        ("strided(128) | last(64)", []),
        ("documents(ids) & causal", []),
        ("blocks(table)", []),
    ],
)
def test_remarks(pattern, codes):
    assert [remark.code for remark in remarks(parse(pattern))] == codes


def test_long_calls_are_counted_short():
    found = explain("causal", 10**6)
    assert found.pairs == 10**6 * (10**6 + 1) // 2
    assert found.tiled_len == (2**15, 2**15)


def test_samples_are_the_same_each_time():
    node = parse_node("documents(ids) & columns(tokens)")
    condition = parse(str(node)).condition
    roles = {"ids": "documents", "tokens": "tokens"}
    first, second = (sample_tensors(condition, roles, 50) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in roles)
    assert all(not np.array_equal(first[n], sample_tensors(condition, roles, 50, seed=1)[n]) for n in roles)


@pytest.mark.parametrize("kv_len", [0, 1, 2, 5])
def test_samples_of_short_calls(kv_len):
    for pattern in PATTERNS:
        parsed = parse(pattern)
        tensors = sample_tensors(parsed.condition, parsed.free_names, kv_len)
        oracle.mask(parsed.syntax, kv_len, kv_len, tensors=tensors)


def test_widths_and_heads_are_counted():
    found = spattn.compile("full").explain(
        64, 128, num_heads=6, num_kv_heads=2, batch_size=3, head_dim=32, v_head_dim=48, dtype="float32"
    )
    assert found.bytes == 4 * 3 * (32 + 48) * (6 * 64 + 2 * 128)
    assert found.flops == 2 * (32 + 48) * 3 * 6 * 64 * 128
    assert "6 heads on 2 of keys, batch 3" in str(found)
    assert "float32, head dimension 32, 48 of v and out" in str(found)


@pytest.mark.parametrize("pattern", ["causal", "last(20)", "strided(8) & causal", "where((q * k) % 7 == 1)"])
@pytest.mark.parametrize("q_offset", [0, 3, 40, 150])
def test_pairs_are_those_of_the_offset(pattern, q_offset):
    found = spattn.compile(pattern).explain(64, 64, q_offset=q_offset)
    assert found.pairs == oracle.mask(parse(pattern).syntax, 64, 64, q_offset=q_offset).sum()
    assert (f"the first query at {q_offset}" in str(found)) == bool(q_offset)


@pytest.mark.parametrize("q_offset", [None, 0, 1 << 19, 1 << 20])
def test_a_long_call_is_counted_where_it_stands(q_offset):
    found = spattn.compile("causal").explain(1 << 19, 1 << 20, q_offset=q_offset)
    first = 1 << 19 if q_offset is None else q_offset
    assert found.pairs == sum(min(first + row + 1, 1 << 20) for row in range(1 << 19))
    assert found.tiled_len == (1 << 15, 1 << 15)
    assert 1.0 <= found.computed < 1.1


def test_key_heads_that_do_not_divide():
    with pytest.raises(ArgumentError, match="k has 3 heads, which do not divide q's 4") as raised:
        spattn.compile("causal").explain(num_heads=4, num_kv_heads=3)
    assert raised.value.code == "E060"


@pytest.mark.parametrize("dtype", ["int8", "torch.int8", "half"])
def test_a_dtype_that_is_not_served(dtype):
    with pytest.raises(ArgumentError, match="float16, bfloat16, float32 and float64 are served"):
        spattn.compile("causal").explain(dtype=dtype)
