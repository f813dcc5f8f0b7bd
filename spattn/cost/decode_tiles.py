"""How a decode step is cut: the tile of a program, and how many programs share the keys of a tile's rows."""

from __future__ import annotations

import math
from dataclasses import replace

from spattn.codegen.tile import Tile, next_power
from spattn.cost.samples import samples
from spattn.cost.sizes import Sizes
from spattn.cost.trips import reach
from spattn.layout.ir import Layout
from spattn.machine.device import Device

PROGRAMS = 2  # of a processor, where a step has one request
MOST_SPLITS = 32  # which one program combines
MIN_TILES = 3  # of keys that a program has at least: fewer cost more than they save
ROWS = 64  # of a tile of several positions
IN_FLIGHT = 16384  # bytes of a tile of keys
REGISTERS = 160  # a thread's, at most, so that three programs share a processor


def positions_each(max_new: int, group: int, *, rows_alike: bool) -> int:
    """Positions of a tile: one where rows of a pass are no neighbours, else as many as fill its rows.

    Args:
        max_new: Rows of a request in a step, at most.
        group: Query heads of a program.
        rows_alike: May a tile have several positions?
    """
    if max_new == 1 or not rows_alike:
        return 1
    return max(min(1 << (max_new - 1).bit_length(), ROWS // group), 1)


def usual_tile(width: int, itemsize: int, rows: int) -> Tile:
    """A tile for so many rows, of heads so wide.

    Args:
        width: The wider of the two head dimensions.
        itemsize: Bytes of an element of q.
        rows: Query heads times positions.
    """
    block_m = next_power(rows)
    block_n = max(16, min(64, 1 << int(math.log2(IN_FLIGHT / (width * itemsize)))))
    if block_m > 16:
        return Tile(block_m, block_n, 8, 3)
    return Tile(block_m, block_n, 4, 3, registers=REGISTERS)


def paged(tile: Tile) -> Tile:
    """The tile over pages: tables are read before keys, and what is on its way then is as much as without."""
    return replace(tile, num_stages=2 * tile.num_stages - 1)


def splits_for(layout: Layout, max_kv_len: int, tile: Tile, programs: int, device: Device) -> int:
    """Programs that share the keys of a tile, at most: they fill the device where a step has one request.

    Args:
        layout: What is walked.
        max_kv_len: Keys of a request, at most.
        tile: Its rows and keys.
        programs: That one request has without splits.
        device: Where.
    """
    wanted = PROGRAMS * device.processors // programs
    tiles = max(tiles_at(layout, max(max_kv_len * eighth // 8, 1), tile.block_n) for eighth in range(1, 9))
    each = max(-(-tiles // max(min(wanted, MOST_SPLITS), 1)), MIN_TILES)
    return -(-tiles // each)


def tiles_at(layout: Layout, kv_len: int, block_n: int) -> int:
    """Tiles of keys that the last of so many positions visits; where data decides, about so many."""
    call = Sizes(1, kv_len, kv_len - 1, 1, 1, 128, 2)
    total = 0.0
    for one in layout.passes:
        seen = samples(one, call, (1,))
        for walk in one.walks:
            full, masked = reach(walk, seen, call, one.residues).steps(block_n)
            total += float((full + masked).max())
    return max(math.ceil(total), 1)
