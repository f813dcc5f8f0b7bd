"""Each workload says its pattern twice: both are the same set."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from spattn import parse  # noqa: E402
from spattn.bench.case import Case  # noqa: E402
from spattn.bench.workloads.catalogue import GROUPS, VARIANTS, WORKLOADS  # noqa: E402
from spattn.bench.workloads.selection import selected  # noqa: E402
from spattn.errors import ArgumentError  # noqa: E402

CPU = torch.device("cpu")
LENGTHS = {"sw4096_64k_d128_gqa4": 4400, "sw1024_16k_d128": 1200, "window_stride_sink_32k_d128": 1200}
"""Long enough for the end of a window to be seen; 768 tokens for the others."""


def case(name: str, length: int) -> Case:
    return Case(WORKLOADS[name].at(length), CPU, torch.float32)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_mask_is_the_pattern(name: str) -> None:
    length = LENGTHS.get(name, 768)
    one = case(name, length)
    pattern = parse(one.workload.text, **one.workload.bindings(length))
    heads = one.workload.q_heads if one.workload.by_head else 1
    expected = pattern.mask(length, length, num_heads=heads, **one.tensors)
    expected = expected.view(-1, length, length)
    found = one.masks(torch.arange(length))
    assert len(expected) == len(found)
    assert torch.equal(found, expected)
    if one.workload.causal:
        assert not found.triu(1).any()


@pytest.mark.parametrize("name", WORKLOADS)
def test_pairs_are_those_of_the_mask(name: str) -> None:
    one = case(name, 192)
    shape = (one.workload.batch, one.workload.q_heads, 192, 192)
    assert one.pairs == int(one.masks(torch.arange(192)).expand(shape).sum())


def test_few_blocks_are_all_drawn() -> None:
    one = case("bigbird_16k_d64", 128)
    assert one.masks(torch.arange(128)).all()


def test_a_window_is_dense_where_it_is_no_shorter() -> None:
    one = WORKLOADS["sw1024_16k_d128"]
    assert one.at(1024).dense
    assert not one.at(1025).dense


def test_groups_and_lengths() -> None:
    assert selected(["variants"]) == list(VARIANTS)
    assert {one.name for one in (*GROUPS["peers"], *GROUPS["unions"])} == set(WORKLOADS)
    name = "sw1024_16k_d128"
    assert [one.name for one in selected([name, f"{name}@1k,4k", name])] == [name, f"{name}@1k", f"{name}@4k"]
    assert [one.length for one in selected([name, f"{name}@1k"], [2048])] == [2048, 1024]
    assert selected(["peers"], [16384])[0].name == "example_16k_d64"


def test_a_grid_wants_a_length_that_is_one() -> None:
    with pytest.raises(ArgumentError, match="no grid"):
        selected(["na2d_128x128_r6_d64"], [1021])
