"""The launches of passes: kernels, tiles and buffers are settled once, and a new length fills in its integers.

A pass is one launch, or two where a value that is inf or NaN may have to be undone, and one more that combines its
splits. What a length may change besides integers, a constant that kernels are compiled with or a pass that has no rows,
makes another plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import torch

from spattn.codegen.model import COMBINED, SCANNED
from spattn.codegen.module import KernelSource
from spattn.codegen.parameters import TokenList
from spattn.codegen.signature import Signature
from spattn.codegen.tile import Tile, padded, repair_tile
from spattn.expressions.nodes import ListedTable
from spattn.expressions.width import LONGEST
from spattn.gpu.extent import Extent
from spattn.gpu.kernel_launch import MAX_INT32, Kernel, KernelLaunch, kind_of
from spattn.gpu.launches import Launches
from spattn.gpu.problem import Problem
from spattn.gpu.workspace import Workspace
from spattn.layout.boxes import sides_of
from spattn.layout.ir import Blocks, Listed, Walk
from spattn.layout.tiling import row_tiles
from spattn.relation.lattice import Affine

LOG2_E = math.log2(math.e)


class Flags(NamedTuple):
    """What a length decides beside integers.

    Attributes:
        wide: Does an offset within the columns of one head pass 2^31?
        whole: Are all keys given? Then they begin at 0, which is compiled in.
        passes: Of each, whether there are columns for each whole tile; None where it has no rows.
        strides: Of the operands, as far as they are compiled in: rows' own, and what kind of numbers the others are.
        tensors: Of the run-time tensors of each pass, inner strides, and whether any number passes 2^31.
    """

    wide: bool
    whole: bool
    passes: tuple[bool | None, ...]
    strides: tuple[tuple[int, int, int], ...]
    tensors: tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True)
class PassKernels:
    """The kernels of a pass: its own, the one that mends rows, the one that combines splits."""

    main: Kernel
    repair: Kernel | None
    combine: Kernel | None


@dataclass(frozen=True)
class SharedRegion:
    """Memory of a plan's launches: so many elements for each row of the call, or for each of a pass's programs' rows.

    Attributes:
        of: The pass; None for the call.
        width: Elements for each.
        dtype: Theirs.
    """

    of: int | None
    width: int
    dtype: torch.dtype


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
        self._row_heads = request.q.shape[0] * problem.row_heads
        self._by_request = bool(request.positions.by_request)
        self._chunks = -(-max(width for width, _ in problem.parts) // COMBINED)
        self._nothing = len(kind.operands)  # stands where a kernel reads or writes nothing: some float32 tensor
        self._regions: list[SharedRegion] = []
        self._numbers = [_names(text.signature) for text in self._texts]
        self._kinds: tuple[Any, Any] = (), ()
        self._flags = self._flags_of(extent)
        self._fixed = {
            "program": 0,
            "num_q_heads": request.num_q_heads,
            "group_size": request.group_size,
            "batch_size": request.batch_size,
            **{names[2]: strides[2] for names, strides in zip(self._strides, extent.strides, strict=True)},
        }
        self._kernels = self._settled()

    def at(self, extent: Extent) -> Launches | None:
        """The launches of a call; None where its numbers ask for other kernels."""
        if self._flags_of(extent) != self._flags:
            return None
        rows = self._rows(extent)
        length = extent.positions.lie_in[not self._by_queries] if self._by_request else rows[1] - rows[0]
        counts: dict[int | None, int] = {None: self._row_heads * length}
        values = self._values(extent)
        launches: list[KernelLaunch] = []
        for i, kernels in enumerate(self._kernels):
            if kernels is not None:
                launches += self._launched(i, kernels, rows, extent, values, counts)
        workspace = Workspace()
        for region in self._regions:
            workspace.add(counts[region.of] * region.width, region.dtype)
        return Launches(launches, workspace)

    def _launched(
        self,
        i: int,
        kernels: PassKernels,
        rows: tuple[int, int],
        extent: Extent,
        values: dict[str, Any],
        counts: dict[int | None, int],
    ) -> list[KernelLaunch]:
        """Those of a pass."""
        tile, count = self._tiles[i], self._problem.count
        if self._by_request:  # wherever a request's rows stand
            block = self._passes[i].block
            rows = block - 1, block - 1 + rows[1] - rows[0]
        tiles = row_tiles(self._passes[i], rows, self._listed(i, extent), tile.block_m, by_request=self._by_request)
        programs = tiles * count * tile.splits
        counts[i] = programs * tile.block_m
        values = {**values, "tiles": tiles, "programs": programs}
        if extent.numbers[i]:
            values.update(zip(self._numbers[i], chain.from_iterable(extent.numbers[i]), strict=True))
        found = [kernels.main.launch((programs, 1, 1), values)]
        if kernels.repair is not None:
            found.append(kernels.repair.launch((-(-programs // SCANNED), 1, 1), values))
        if kernels.combine is not None:
            rows_of_head = values["q_len" if self._by_queries else "num_keys"]
            grid = tiles * count * self._chunks, 1, 1
            found.append(kernels.combine.launch(grid, values | {"rows": rows_of_head}))
        return found

    def _values(self, extent: Extent) -> dict[str, Any]:
        """What every kernel is told of a call, by name."""
        at = extent.positions
        values: dict[str, Any] = {
            "q_len": at.lie_in[0] if at.by_request else at.q_len,
            "kv_len": at.kv_len,
            "q_offset": at.q_offset,
            "k_offset": at.k_offset,
            "num_keys": at.lie_in[1] if at.by_request else at.num_keys,
            "qk_scale": extent.scale * LOG2_E,
        }
        for (batch, head, _), strides in zip(self._strides, extent.strides, strict=True):
            values[batch], values[head] = strides[0], strides[1]
        return values

    @cached_property
    def _strides(self) -> tuple[tuple[str, str, str], ...]:
        """Names of the strides of batch, head and row, of each operand."""
        groups = self._texts[0].signature.groups[: len(self._problem.kind.operands)]
        return tuple((batch.name, head.name, row.name) for _, batch, head, row in groups)

    def _rows(self, extent: Extent) -> tuple[int, int]:
        return extent.queries if self._by_queries else extent.keys

    def _columns(self, extent: Extent) -> tuple[int, int]:
        return extent.keys if self._by_queries else extent.queries

    def _listed(self, i: int, extent: Extent) -> int:
        """How long the list is that rows come from, where they do."""
        rows = self._passes[i].rows
        if not isinstance(rows, Listed):
            return 0
        return extent.numbers[i][self._texts[i].roles.index(TokenList(rows.tokens))][2]

    def _flags_of(self, extent: Extent) -> Flags:
        rows, columns, by_request = self._rows(extent), self._columns(extent), self._by_request
        wide = self._farthest(extent) * max(extent.strides[i][2] for i in self._of_columns) > MAX_INT32
        fits = tuple(
            None
            if rows[1] <= rows[0] or self._problem.count == 0 or not by_request and one.skips(*rows)
            else not by_request and all(_fits(walk, columns, tile.block_n) for walk in one.walks)
            for one, tile in zip(self._passes, self._tiles, strict=True)
        )
        if self._kinds[0] != extent.strides:
            kinds = tuple((kind_of(batch), kind_of(head), row) for batch, head, row in extent.strides)
            self._kinds = extent.strides, kinds
        tensors = tuple(tuple((*own[3::2], max(own) > MAX_INT32) for own in numbers) for numbers in extent.numbers)
        whole = not self._by_request and extent.keys == (0, extent.positions.kv_len)
        return Flags(wide, whole, fits, self._kinds[1], tensors)

    def _farthest(self, extent: Extent) -> int:
        """How far from 0 a column may stand."""
        at = extent.positions
        unknown = {"k_offset"} if self._by_queries else {"q_offset", "k_offset", "kv_len"}
        if unknown & {*at.by_request}:
            return LONGEST
        first, stop = self._columns(extent)
        if at.by_request:  # a request's rows end with its keys, or begin where the call says
            stop = max(stop, at.kv_len, at.given[1])
        return max(abs(first), abs(stop), at.q_len)

    @cached_property
    def _of_columns(self) -> tuple[int, int]:
        names = ("k", "v") if self._by_queries else ("q", "do")
        first, second = map(self._problem.kind.operands.index, names)
        return first, second

    def _settled(self) -> list[PassKernels | None]:
        """The kernels of each pass, and where their pointers lead."""
        kind = self._problem.kind
        inputs_at = len(kind.tensors) + 1
        requests_at = inputs_at + sum(len(one.roles) for one in self._texts)
        self._requests_at = requests_at if self._by_request else self._nothing
        self._regions_at = requests_at + self._by_request
        between = min(sum(not one.final for one in self._texts), 2)
        # what one pass writes the next reads, never in place: the launch that mends rows reads again
        parts = [self._part_regions(None) for _ in range(between)]
        known = {f"{name}_ptr": i for i, name in enumerate(kind.tensors)} | {"bh_ptr": len(kind.tensors)}
        found: list[PassKernels | None] = []
        for i, (text, fits) in enumerate(zip(self._texts, self._flags.passes, strict=True)):
            own = known | {f"t{j}_ptr": inputs_at + j for j in range(len(text.roles))}
            inputs_at += len(text.roles)
            found.append(None if fits is None else self._of_pass(i, text, fits, own, parts))
        return found

    def _of_pass(
        self, i: int, text: KernelSource, fits: bool, pointers: dict[str, int], parts: list[list[int]]
    ) -> PassKernels:
        tile, kind = self._tiles[i], self._problem.kind
        reads = writes = [self._nothing] * len(kind.parts)
        if text.resume or not text.final:
            reads, writes = parts[-1], parts[0]
            parts.reverse()
        splits = [self._nothing] * len(kind.parts), self._nothing
        if tile.splits > 1:
            splits = self._part_regions(i), self._region(i, 1, torch.int64)
        flags = self._region(i, 1, torch.float32) if text.has_masked_tiles else self._nothing
        own = {**pointers, "split_row_ptr": splits[1], "flags_ptr": flags, "requests_ptr": self._requests_at}
        for part, *places in zip(kind.parts, reads, writes, splits[0], strict=True):
            own |= {f"{way}{part.tag}_ptr": place for way, place in zip(WAYS, places, strict=True)}
        main = self._kernel(text, text.name, text.signature, tile, own, fits=fits)
        repair = combine = None
        if text.has_masked_tiles:
            repair = self._kernel(text, f"{text.name}_repair", text.repairing, repair_tile(tile), own, fits=fits)
        if tile.splits > 1:
            combine = self._kernel(text, f"{text.name}_combine", text.combining, tile, own, fits=True)
        return PassKernels(main, repair, combine)

    def _region(self, of: int | None, width: int, dtype: torch.dtype) -> int:
        """The place of a new region among a call's tensors."""
        self._regions.append(SharedRegion(of, width, dtype))
        return self._regions_at + len(self._regions) - 1

    def _part_regions(self, of: int | None) -> list[int]:
        """Places for the results of rows."""
        return [self._region(of, width, dtype) for width, dtype in self._problem.parts]

    def _kernel(
        self,
        text: KernelSource,
        name: str,
        signature: Signature,
        tile: Tile,
        pointers: dict[str, int],
        *,
        fits: bool,
    ) -> Kernel:
        """Compiled with these constants."""
        request = self._problem.request
        head_dim, v_head_dim = request.q.shape[-1], request.v.shape[-1]
        widths = padded(head_dim, v_head_dim, request.q.dtype.itemsize)
        if name.endswith("_combine"):
            widths = COMBINED, COMBINED
        sides = sides_of(text.boxes, tile.block_m, tile.block_n)
        constants = {
            **self._fixed,
            "splits": tile.splits,
            "heads": self._problem.row_heads,
            "chunks": self._chunks,
            "HEAD_DIM": head_dim,
            "V_HEAD_DIM": v_head_dim,
            "BLOCK_D": widths[0],
            "BLOCK_DV": widths[1],
            "BLOCK_M": tile.block_m,
            "BLOCK_N": tile.block_n,
            "LISTED_HEADS": self._problem.heads.listed is not None,
            "PRECISION": "tf32" if request.tf32 else "ieee",
            "INT64_OFFSETS": self._flags.wide,
            "NO_TAIL": fits,
            "SPLIT_KV": tile.splits > 1,
            "PEELED": tile.peeled,
            "ALL_KEYS": self._flags.whole,
            "REQUESTS": self._by_request,
            "REPAIR": False,
            "RESUME": text.resume,
            "FINAL": text.final,
            **dict(zip(text.sides, sides, strict=True)),
        }
        alike = self._flags.strides, self._flags.tensors[text.number]
        return Kernel.of(
            self._problem.modules.kernels(tile.language)[name], signature, constants, pointers, tile, alike
        )


WAYS = ("part_in", "part_out", "split")
"""What begins the names of pointers to parts."""


def _names(signature: Signature) -> tuple[str, ...]:
    """Of the numbers of a pass's run-time tensors."""
    return tuple(one.name for line in signature.inputs for one in line[1:])


def _fits(walk: Walk, columns: tuple[int, int], block_n: int) -> bool:
    """Are there columns for a whole tile wherever one may start, so that loads need no mask?"""
    first, stop = columns
    match walk.keys:
        case Affine(step, _):
            return (stop - first) // step >= block_n
        case Blocks(ListedTable(), _, False) if first:
            return False  # a list may name blocks of keys that are not given
        case Blocks(_, size):
            return first % size == 0 and min(size, stop - first) >= block_n
    return True
