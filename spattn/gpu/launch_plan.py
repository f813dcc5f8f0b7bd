"""The launches of passes: kernels, tiles and buffers are settled once, and a new length fills in its integers.

A pass is one launch, or two where a value that is inf or NaN may have to be undone, and one more that combines its
splits. What a length may change besides integers, a constant that kernels are compiled with or a pass that has no rows,
makes another plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from spattn.codegen.kinds import numbers_of
from spattn.codegen.module import PassSource
from spattn.codegen.parameters import TokenList
from spattn.codegen.parts import COMBINED, SCANNED
from spattn.codegen.tile import Tile, padded, unhurried
from spattn.gpu.extent import Extent
from spattn.gpu.kernel_launch import MAX_INT32, Kernel, KernelLaunch, Pointer, kind_of
from spattn.gpu.launches import Launches
from spattn.gpu.problem import Problem
from spattn.gpu.workspace import Workspace
from spattn.layout.boxes import sides_of
from spattn.layout.ir import Blocks, Listed, Walk
from spattn.layout.tiling import row_tiles
from spattn.relation.lattice import Affine

MAX_GRID = 65535  # programs along the second and the third axis of a grid
LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Flags:
    """What a length decides beside integers.

    Attributes:
        wide: Does an offset within the columns of one head pass 2^31?
        passes: Of each, whether there are columns for each whole tile; None where it has no rows.
        strides: Of the operands, as far as they are compiled in: rows' own, and what kind of numbers the others are.
        tensors: Of the run-time tensors of each pass, inner strides, and whether any number passes 2^31.
    """

    wide: bool
    passes: tuple[bool | None, ...]
    strides: tuple[tuple[int, int, int], ...]
    tensors: tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True)
class PassKernels:
    """The kernels of a pass: its own, the one that mends rows, the one that combines splits."""

    main: Kernel
    repair: Kernel | None
    combine: Kernel | None


class LaunchPlan:
    """Launches in order, for calls of one kind.

    Args:
        problem: A call, and the passes.
        tiles: Of each pass.
        extent: The call's numbers.
    """

    def __init__(self, problem: Problem, tiles: Sequence[Tile], extent: Extent) -> None:
        kind, request = problem.kind, problem.request
        self._problem, self._tiles, self._passes = problem, tuple(tiles), problem.layout.passes
        self._by_queries = kind.direction == "queries"
        self._texts = problem.modules.passes(kind, tiles)
        self._counts = request.num_q_heads, request.group_size
        self._entries = [request.batch_size] * ("batch_size" in numbers_of(problem.layout.condition))
        self._nothing = len(kind.operands)  # stands where a kernel reads or writes nothing: some float32 tensor
        self._heads_at = len(kind.tensors)
        self._regions_at = self._heads_at + 1 + sum(len(one.roles) for one in self._texts)
        self._parts = problem.parts
        self.launched = False
        self._flags = self._flags_of(extent)
        self._kernels = [None if fits is None else self._settled(i, fits) for i, fits in enumerate(self._flags.passes)]

    @property
    def texts(self) -> tuple[PassSource, ...]:
        """The kernels' sources, a pass each."""
        return self._texts

    def at(self, extent: Extent) -> Launches | None:
        """The launches of a call; None where its numbers ask for other kernels."""
        if self._flags_of(extent) != self._flags:
            return None
        made = _Filling(self, extent).launches()
        self.launched = True
        return made

    def _rows(self, extent: Extent) -> tuple[int, int]:
        return extent.queries if self._by_queries else extent.keys

    def _columns(self, extent: Extent) -> tuple[int, int]:
        return extent.keys if self._by_queries else extent.queries

    def _flags_of(self, extent: Extent) -> Flags:
        rows, columns = self._rows(extent), self._columns(extent)
        wide = (columns[1] - columns[0]) * max(extent.strides[i][2] for i in self._of_columns) > MAX_INT32
        fits = tuple(
            None
            if rows[1] <= rows[0] or self._problem.count == 0 or one.skips(*rows)
            else all(_fits(walk, columns, tile.block_n) for walk in one.walks)
            for one, tile in zip(self._passes, self._tiles, strict=True)
        )
        strides = tuple((kind_of(batch), kind_of(head), row) for batch, head, row in extent.strides)
        tensors = tuple(tuple((*own[3::2], max(own) > MAX_INT32) for own in numbers) for numbers in extent.numbers)
        return Flags(wide, fits, strides, tensors)

    @property
    def _of_columns(self) -> tuple[int, int]:
        names = ("k", "v") if self._by_queries else ("q", "do")
        first, second = map(self._problem.kind.operands.index, names)
        return first, second

    def _settled(self, i: int, fits: bool) -> PassKernels:
        text, tile = self._texts[i], self._tiles[i]
        main = self._kernel(text, text.name, tile, fits=fits)
        repair = self._kernel(text, text.name, unhurried(tile), fits=fits, careful=True) if text.leaky else None
        combine = self._kernel(text, f"{text.name}_combine", tile, fits=True, dims=COMBINED)
        return PassKernels(main, repair, combine if tile.splits > 1 else None)

    def _kernel(
        self, text: PassSource, name: str, tile: Tile, *, fits: bool, careful: bool = False, dims: int = 0
    ) -> Kernel:
        """Compiled with these constants, for all dimensions of a row or `dims`."""
        problem, request = self._problem, self._problem.request
        head_dim, v_head_dim = request.q.shape[-1], request.v.shape[-1]
        widths = (dims, dims) if dims else padded(head_dim, v_head_dim, request.q.dtype.itemsize)
        precision = "tf32" if request.tf32 else "ieee"
        constants = (
            head_dim, v_head_dim, *widths,
            tile.block_m, tile.block_n, problem.heads.listed is not None, precision, self._flags.wide, fits,
            tile.splits > 1, tile.apart, careful,
            *sides_of(text.boxes, tile.block_m, tile.block_n),
        )  # fmt: skip
        alike = (*self._counts, self._flags.strides, self._flags.tensors[text.number])
        return Kernel(problem.modules.kernels(tile.language)[name], constants, tile, alike)


class _Filling:
    """A plan's integers for one call."""

    def __init__(self, plan: LaunchPlan, extent: Extent) -> None:
        self.plan, self.extent = plan, extent
        self.rows = plan._rows(extent)
        self.workspace = Workspace()
        self.done: list[KernelLaunch] = []
        # kernels that have been launched know where their pointers stand
        self.pointer: Callable[[int], Any] = _zero if plan.launched else Pointer

    def launches(self) -> Launches:
        plan, place = self.plan, self.plan._heads_at + 1
        self.parts = self.part_regions()
        for i, (text, kernels) in enumerate(zip(plan._texts, plan._kernels, strict=True)):
            if kernels is not None:
                self.one_pass(i, text, kernels, place)
            place += len(text.roles)
        return Launches(self.done, self.workspace)

    def region(self, count: int, dtype: torch.dtype) -> int:
        """The place of a new region among a call's tensors."""
        return self.plan._regions_at + self.workspace.add(count, dtype)

    def regions(self, rows: int) -> tuple[int, ...]:
        """Places for the results of so many rows."""
        return tuple(self.region(rows * width, dtype) for width, dtype in self.plan._parts)

    def part_regions(self) -> list[tuple[int, ...]]:
        """Results between passes; two at most.

        What one pass writes the next reads, never in place: the launch that mends rows reads again.
        """
        problem = self.plan._problem
        rows = problem.request.batch_size * problem.row_heads * (self.rows[1] - self.rows[0])
        between = sum(not one.final for one in self.plan._texts)
        return [self.regions(rows) for _ in range(min(between, 2))]

    def one_pass(self, i: int, text: PassSource, kernels: PassKernels, place: int) -> None:
        plan, tile = self.plan, self.plan._tiles[i]
        count = plan._problem.count
        tiles = row_tiles(plan._passes[i], self.rows, self.listed(i, text), tile.block_m)
        programs = tiles * count * tile.splits
        reads, writes = self.of_pass(text)
        split = self.regions(programs * tile.block_m) if tile.splits > 1 else writes
        marks = self.region(programs * tile.block_m, torch.float32) if text.leaky else plan._nothing
        tail = self.numbers([tiles, tile.splits, programs])
        tensors = self.tensors(i, place)
        whole = [*self.fixed(*reads, *split, marks), *tensors, *tail]
        self.done.append(kernels.main.launch(_grid(tiles * tile.splits, count), whole))
        if kernels.repair is not None:
            self.done.append(kernels.repair.launch((-(-programs // SCANNED), 1, 1), whole))
        if kernels.combine is not None:
            fixed = [*map(self.pointer, split), *self.fixed(*reads, *writes, plan._nothing)]
            widest = max(plan._problem.request.q.shape[-1], plan._problem.request.v.shape[-1])
            grid = tiles * count * -(-widest // COMBINED), 1, 1
            self.done.append(kernels.combine.launch(grid, [*fixed, *tensors, *tail]))

    def listed(self, i: int, text: PassSource) -> int:
        """How long the list is that rows come from, where they do."""
        rows = self.plan._passes[i].rows
        if not isinstance(rows, Listed):
            return 0
        return self.extent.numbers[i][text.roles.index(TokenList(rows.tokens))][2]

    def of_pass(self, text: PassSource) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What a pass reads and what it writes."""
        if not (text.resume or not text.final):
            nothing = (self.plan._nothing,) * len(self.plan._parts)
            return nothing, nothing
        read, write = self.parts[-1], self.parts[0]
        self.parts.reverse()
        return read, write

    def fixed(self, *pointers: int) -> list[Any]:
        """Operands with their strides, vectors; parts read, parts written, the heads, the rows' marks."""
        plan = self.plan
        arguments: list[Any] = []
        for number, strides in enumerate(self.extent.strides):
            arguments += [self.pointer(number), *strides]
        *parts, marks = pointers
        vectors = range(len(self.extent.strides), plan._heads_at)
        return [*arguments, *map(self.pointer, (*vectors, *parts, plan._heads_at, marks))]

    def tensors(self, i: int, place: int) -> list[Any]:
        """Each run-time tensor of a pass with its numbers."""
        own = self.extent.numbers[i]
        return [argument for j, numbers in enumerate(own) for argument in (self.pointer(place + j), *numbers)]

    def numbers(self, scalars: list[int]) -> list[Any]:
        extent = self.extent
        lengths = [extent.q_len, extent.kv_len, extent.q_offset]
        return [*self.plan._counts, *lengths, *scalars, extent.scale * LOG2_E, *self.plan._entries]


def _fits(walk: Walk, columns: tuple[int, int], block_n: int) -> bool:
    """Are there columns for a whole tile wherever one may start, so that loads need no mask?"""
    first, stop = columns
    match walk.keys:
        case Affine(step, _):
            return (stop - first) // step >= block_n
        case Blocks(_, size):
            return first % size == 0 and min(size, stop - first) >= block_n
    return True


def _zero(number: int) -> int:
    return 0


def _grid(tiles: int, count: int) -> tuple[int, int, int]:
    """Tiles along the first axis, then (batch, head) pairs, some of them perhaps past the last."""
    along = min(count, MAX_GRID)
    return tiles, along, -(-count // along)
