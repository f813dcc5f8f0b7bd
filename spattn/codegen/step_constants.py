"""What is compiled into the kernel of a decoder's step, said once for launches and for compiling ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spattn.codegen.decode import DecodeSource
from spattn.codegen.tile import Tile, padded
from spattn.layout.boxes import sides_of


@dataclass(frozen=True)
class StepConstants:
    """The constants, but for those of the text.

    Attributes:
        tile: How a program is cut.
        num_q_heads, group_size: Heads, and how many of them share keys.
        head_dim, v_head_dim: Their widths.
        itemsize: Bytes of an element of q.
        positions: Of a request, in a tile.
        group: Query heads of a program.
        splits: Programs that share the keys of a tile, at most.
        batch: Requests, at most.
        page_size: Keys of a page; 0 without pages.
        kept: Progressions of keys that a ring keeps; -1 without a ring.
        in_order: Do the keys of a tile lie one behind the other?
        ragged: Are rows packed?
        listed_heads: Has a launch some of the heads?
        has_sinks, has_lse, has_scales: Are there any?
        shared: Is it the launch over keys that requests share?
        has_shared: Has there been one?
        tf32: May float32 products use TF32?
    """

    tile: Tile
    num_q_heads: int
    group_size: int
    head_dim: int
    v_head_dim: int
    itemsize: int
    positions: int
    group: int
    splits: int
    batch: int
    page_size: int = 0
    kept: int = -1
    in_order: bool = True
    ragged: bool = False
    listed_heads: bool = False
    has_sinks: bool = False
    has_lse: bool = False
    has_scales: bool = False
    shared: bool = False
    has_shared: bool = False
    tf32: bool = False

    def of(self, source: DecodeSource) -> dict[str, Any]:
        """By the names that a text has for them, the sides of its boxes among them."""
        block_d, block_dv = padded(self.head_dim, self.v_head_dim, self.itemsize)
        names, sides = source.signature.names, sides_of(source.boxes, self.tile.block_m, self.tile.block_n)
        return {
            "num_q_heads": self.num_q_heads,
            "group_size": self.group_size,
            "HEAD_DIM": self.head_dim,
            "V_HEAD_DIM": self.v_head_dim,
            "BLOCK_D": block_d,
            "BLOCK_DV": block_dv,
            "BLOCK_M": self.tile.block_m,
            "BLOCK_N": self.tile.block_n,
            "POSITIONS": self.positions,
            "SPLITS": 1 << (self.splits - 1).bit_length(),
            "BATCH": 1 << (self.batch - 1).bit_length(),
            "GROUP": self.group,
            "PAGE_SIZE": self.page_size,
            "KEPT": self.kept,
            "IN_ORDER": self.in_order,
            "RAGGED": self.ragged,
            "LISTED_HEADS": self.listed_heads,
            "HAS_SINKS": self.has_sinks,
            "HAS_LSE": self.has_lse,
            "HAS_SCALES": self.has_scales,
            "SHARED": self.shared,
            "HAS_SHARED": self.has_shared,
            "PRECISION": "tf32" if self.tf32 else "ieee",
            **dict(zip(names[len(names) - len(sides) :], sides, strict=True)),
        }
