"""How a pass is cut into programs, and how a language's compiler schedules one."""

from __future__ import annotations

from dataclasses import replace

from spattn.expressions.frozen import frozen

SWIZZLED = 128  # bytes of a row within which shared memory is permuted for Hopper's products


@frozen
class Tile:
    """How a pass is cut into programs, and how a compiler schedules one.

    Attributes:
        block_m, block_n: Queries, and keys a step.
        num_warps, num_stages: Warps of a program; key tiles in flight.
        registers: At most so many a thread, so that more programs share a multiprocessor; 0 leaves it to the compiler.
        splits: Programs that share the keys of one tile of queries.
        peeled: Have partial tiles a loop of their own, before that of the full ones?
        language: Whose these numbers are.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    registers: int = 0
    splits: int = 1
    peeled: bool = False
    language: str = "triton"

    def __str__(self) -> str:
        """`64 x 32, 4 warps, 3 stages, 96 registers, 8 splits, partial peeled`."""
        registers = f", {self.registers} registers" if self.registers else ""
        splits = f", {self.splits} splits" if self.splits > 1 else ""
        more = f"{registers}{splits}{', partial peeled' if self.peeled else ''}"
        return f"{self.block_m} x {self.block_n}, {self.num_warps} warps, {self.num_stages} stages{more}"


def repair_tile(tile: Tile) -> Tile:
    """The tile of a launch that repairs, which is rare: quickly compiled."""
    return replace(tile, num_stages=1, registers=0, peeled=False)


def next_power(n: int) -> int:
    """The least power of two that is at least n and 16, the smallest side of a matrix product."""
    return max(16, 1 << (n - 1).bit_length())


def padded(head_dim: int, v_head_dim: int, itemsize: int) -> tuple[int, int]:
    """Dimensions of q and k, and those of v and out, as tiles have them.

    Tiles of both permute shared memory alike. Where two at one address did not, ptxas 12.8 took the second's descriptor
    from a register that nothing had written.
    """
    widths = next_power(head_dim), next_power(v_head_dim)
    least = min(max(widths), SWIZZLED // itemsize)
    return max(widths[0], least), max(widths[1], least)
