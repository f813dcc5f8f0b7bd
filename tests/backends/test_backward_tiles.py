"""What the host settles for the backward passes: tiles that fit, splits of long walks, lists of heads and of blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spattn.call.positions import Positions
from spattn.call.prepared import NONE
from spattn.call.request import Request
from spattn.codegen.kernel_specs import GRAD_KV, GRAD_Q
from spattn.codegen.tile import next_power
from spattn.compiler import compile_pattern
from spattn.cost.backward_tiles import Extent, backward_tile
from spattn.gpu.heads import key_heads, query_heads
from spattn.gpu.inputs import inverse
from spattn.machine.device import Device
from spattn.machine.target import SHARED_KIB
from tests.kernels import TRITON


def extent(length: int = 8192, head_dim: int = 64, itemsize: int = 2, count: int = 16) -> Extent:
    return Extent((0, length), (0, length), length, count, 1, head_dim, itemsize)


def tiles(pattern: str, given: Extent, device: Device | None = None) -> dict[str, list]:
    one = compile_pattern(pattern)
    device = device or Device()
    return {
        kind.direction: [
            backward_tile(kind, each, given, device, TRITON) for each in one.layout((), kind.direction).passes
        ]
        for kind in (GRAD_Q, GRAD_KV)
    }


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("head_dim", [1, 40, 64, 128, 200, 256])
@pytest.mark.parametrize("kib", sorted(set(SHARED_KIB.values())))
def test_tiles_fit_into_shared_memory(kib: int, head_dim: int, itemsize: int) -> None:
    found = tiles("causal", extent(head_dim=head_dim, itemsize=itemsize), Device(shared=kib * 1024))
    for tile in found["queries"] + found["keys"]:
        rows = 2 * (tile.block_m + tile.block_n * tile.num_stages)
        assert rows * next_power(head_dim) * itemsize <= kib * 1024
        assert min(tile.block_m, tile.block_n) >= 16


def test_columns_that_all_queries_see_are_split() -> None:
    found = tiles("columns([::4096]) & causal | last(256)", extent())
    assert [tile.splits for tile in found["queries"]] == [1]
    few, rest = found["keys"]
    assert few.splits > 1
    assert few.block_m == 16
    assert rest.splits == 1


def test_tables_cut_tiles_to_their_blocks() -> None:
    found = tiles("blocks(t, size=32)", extent())
    assert {tile.block_m for one in found.values() for tile in one} == {32}
    assert {tile.block_n for one in found.values() for tile in one} == {32}


def request(batch: int, heads: int, kv_heads: int) -> Request:
    shapes = ((batch, heads, 4, 8), (batch, kv_heads, 4, 8), (batch, kv_heads, 4, 8))
    return Request(*(torch.zeros(shape) for shape in shapes), scale=1.0, positions=Positions.usual(4, 4), tensors=NONE)


def test_key_heads_list_the_query_heads_that_read_them() -> None:
    given = request(2, 6, 2)
    assert key_heads(given, None).count == 4
    assert query_heads(given, None).count == 12
    pairs = np.array([0, 2, 3, 7, 11])  # heads 0, 2, 3 of entry 0; 1 and 5 of entry 1
    found = key_heads(given, pairs)
    listed = np.frombuffer(found.listed or b"", np.int32).tolist()
    assert found.count == 4
    entries = [listed[3 * i : 3 * i + 3] for i in range(4)]
    assert [(pair, listed[first : first + size]) for pair, first, size in entries] == [
        (0, [0, 2]), (1, [3]), (2, [1]), (3, [5])
    ]  # fmt: skip


def test_inverse_lists_hold_the_rows_of_each_value() -> None:
    random = np.random.default_rng(0)
    drawn = random.integers(-1, 6, (3, 9, 4))
    found = inverse(drawn, 6, first=-2)
    for head in range(3):
        for value in range(6):
            number, *rows = found[head, value].tolist()
            pairs = np.argwhere(drawn[head] == value)
            assert rows[:number] == (pairs[:, 0] - 2).tolist()
            assert all(row == -1 for row in rows[number:])
