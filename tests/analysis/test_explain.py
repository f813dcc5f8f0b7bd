"""Explanations and remarks, beside the oracle."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

import spattn
from spattn import oracle
from spattn.analysis.explanation import Explanation
from spattn.analysis.remarks import remarks
from spattn.analysis.samples import sample_tensors
from spattn.errors import ArgumentError, SpattnError
from spattn.frontend.parser import parse as parse_node
from spattn.pattern import parse
from tests import strategies

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


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_pairs_are_those_of_the_given_keys(data: st.DataObject) -> None:
    node = data.draw(st.one_of(st.sampled_from([parse_node(one) for one in PATTERNS]), strategies.patterns(depth=2)))
    q_len, kv_len = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    q_offset, (first, stop) = data.draw(strategies.q_offsets()), data.draw(strategies.key_ranges(kv_len))
    batch, heads = data.draw(st.sampled_from([(1, 1), (2, 3)]))
    sizes = {"num_heads": heads, "batch_size": batch, "q_offset": q_offset}
    try:
        tensors = data.draw(strategies.tensors_for(node, q_len, kv_len, batch, heads))
        mask = oracle.mask(node, q_len, kv_len, tensors=tensors, **sizes)
    except SpattnError:
        reject()
    mask = np.broadcast_to(mask, (batch, heads, q_len, kv_len))[..., first:stop]
    at = {"k_offset": first, "num_keys": stop - first}
    found = spattn.compile(str(node)).explain(q_len, kv_len, missing_keys="ignore", **at, **sizes, **tensors)
    assert found.pairs == mask.sum()
    assert found.density == pytest.approx(mask.mean() if mask.size else 0.0)
    assert (found.k_offset, found.num_keys, found.kv_len) == (first, stop - first, kv_len)
    assert found.tiled_len == (q_len, stop - first)
    assert (f"keys {first} .. {stop - 1} of {kv_len}" in str(found)) == (0 < stop - first < kv_len)


def test_work_is_that_of_the_given_keys():
    attn = spattn.compile("causal")
    sizes = {"num_heads": 16, "missing_keys": "ignore"}
    [alone] = attn.explain(8192, **sizes).groups
    [own] = attn.explain(8192, 32768, q_offset=16384, k_offset=16384, num_keys=8192, **sizes).groups
    [before] = attn.explain(8192, 32768, q_offset=16384, k_offset=8192, num_keys=8192, **sizes).groups
    [after] = attn.explain(8192, 32768, q_offset=16384, k_offset=24576, num_keys=8192, **sizes).groups
    tilings = [(one.passes[0].tiling, one.passes[0].cost) for one in (alone, own, before, after)]
    assert tilings[1] == tilings[0]
    assert tilings[2][0].full > 1.9 * tilings[0][0].full
    assert tilings[2][1].microseconds > 1.7 * tilings[0][1].microseconds
    assert tilings[3][0].full == tilings[3][0].partial == 0


def test_what_is_read_is_what_is_given():
    found = spattn.compile("last(64)").explain(64, 10**6, k_offset=10**6 - 128, head_dim=64)
    assert found.bytes == 2 * (64 + 64) * (64 + 128)
    assert found.pairs == 64 * 64
    assert found.tiled_len == (64, 128)
    assert found.tiled_kv_len == 10**6
    assert "64 queries, 128 keys, keys 999872 .. 999999 of 1000000" in str(found)


def test_few_keys_of_a_very_long_whole():
    found = spattn.compile("last(64)").explain(1, 10**9, k_offset=10**9 - 64)
    assert (found.pairs, found.computed) == (64, pytest.approx(16))
    assert (found.tiled_len, found.tiled_kv_len) == ((1, 64), 2**20)
    assert "tiles       counted at 1 queries and 64 keys of 1048576" in str(found)


@pytest.mark.parametrize("first", [0, 1 << 18, 1 << 19])
def test_a_long_call_with_some_keys_is_counted_where_it_stands(first):
    at = {"q_offset": 1 << 18, "k_offset": first, "num_keys": 1 << 18, "missing_keys": "ignore"}
    found = spattn.compile("causal").explain(1 << 18, 1 << 20, **at)
    assert found.pairs == {0: 1 << 36, 1 << 18: (1 << 17) * ((1 << 18) + 1), 1 << 19: 0}[first]
    assert found.tiled_len == (1 << 15, 1 << 15)
    assert found.computed is None or 1.0 <= found.computed < 1.1


@pytest.mark.parametrize(
    ("pattern", "at", "message"),
    [
        ("full", {"k_offset": 500}, "row 0, at position 0, attends key 0, and keys 500 .. 999 are given"),
        ("causal", {"num_keys": 900, "kv_len": 1000}, "row 900, at position 900, attends key 900, and keys 0 .. 899"),
        ("last(600)", {"k_offset": 500, "q_offset": 0}, "row 0, at position 0, attends key 0, and keys 500 .. 999"),
        ("sink(4)", {"k_offset": 2000}, "row 0, at position 0, attends key 0, and none are given"),
        ("causal", {"k_offset": 1.5}, "k_offset is a float, not an integer"),
        ("causal", {"num_keys": -1}, "num_keys is -1; a length is 0 or more"),
        ("causal", {"kv_len": -1}, "kv_len is -1; a length is 0 or more"),
        ("causal", {"missing_keys": "drop"}, 'missing_keys is "refuse" or "ignore", not \'drop\''),
    ],
)
def test_what_a_call_refuses_is_refused(pattern, at, message):
    with pytest.raises(ArgumentError, match=re.escape(message)) as raised:
        spattn.compile(pattern).explain(1000, **at)
    assert raised.value.code == "E060"


@pytest.mark.parametrize("pattern", ["full", "causal", "last(30)", "columns([0, -1])", "chunk(50) & causal"])
@pytest.mark.parametrize(("k_offset", "num_keys", "q_offset"), [(0, 60, None), (40, 60, 0), (50, 50, 50), (70, 10, 80)])
def test_errors_are_those_of_the_call(pattern, k_offset, num_keys, q_offset):
    torch = pytest.importorskip("torch")
    attn, q, k = spattn.compile(pattern), torch.zeros(1, 1, 20, 8), torch.zeros(1, 1, num_keys, 8)
    texts = []
    for asked in (
        lambda: attn(q, k, k, q_offset=q_offset, k_offset=k_offset, kv_len=100),
        lambda: attn.explain(20, 100, q_offset=q_offset, k_offset=k_offset, num_keys=num_keys),
    ):
        try:
            asked()
            texts.append("")
        except ArgumentError as error:
            texts.append(str(error))
    assert texts[0] == texts[1]


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
