"""The launches of passes for given shapes: tiles, splits, grids and buffers are settled, addresses are not.

A pass is one launch, or two where a value that is inf or NaN may have to be undone (`leaky`), and one more that
combines its splits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from spattn.call.request import Request
from spattn.call.shape import Shape
from spattn.codegen.kinds import Kind, numbers_of
from spattn.codegen.module import PassSource
from spattn.codegen.parameters import Role, TokenList
from spattn.codegen.parts import COMBINED, SCANNED
from spattn.cost.tile import Tile, padded, unhurried
from spattn.expressions.nodes import Tokens
from spattn.gpu.devices import described
from spattn.gpu.kernel_launch import MAX_INT32, KernelLaunch, compile_together
from spattn.gpu.workspace import Workspace
from spattn.layout.boxes import sides_of
from spattn.layout.ir import Blocks, Layout, Listed, Pass, Walk
from spattn.layout.tiling import row_tiles
from spattn.machine.device import Device
from spattn.relation.lattice import Affine

MAX_GRID = 65535  # programs along the second and the third axis of a grid


@dataclass
class LaunchPlan:
    """Launches in order.

    Attributes:
        workspace: What they share.
        compiled: Has each run before? Never where Triton interprets.
    """

    steps: list[KernelLaunch] = field(default_factory=list)
    workspace: Workspace = field(default_factory=Workspace)
    compiled: bool = False

    def run(self, tensors: list[torch.Tensor]) -> None:
        """Launches on the current stream.

        Args:
            tensors: Those of the kind, the pairs, then the run-time tensors of each pass.
        """
        if self.compiled:
            self.again([tensor.data_ptr() for tensor in tensors], tensors[0].device)
            return
        tensors = tensors + self.workspace.tensors(self.workspace.allocate(tensors[0].device))
        compile_together(self.steps, tensors)
        for step in self.steps:
            step.first(tensors)
        self.compiled = all(step.compiled is not None for step in self.steps)

    def again(self, addresses: list[int], device: torch.device) -> None:
        """Launches what has been compiled, for tensors at these addresses."""
        buffer = self.workspace.allocate(device) if self.workspace.size else None
        if buffer is not None:
            addresses = addresses + self.workspace.addresses(buffer)
        stream = torch._C._cuda_getCurrentRawStream(device.index)
        for step in self.steps:
            step.again(addresses, stream)


@dataclass(frozen=True)
class Problem:
    """Passes of one kind on tensors of given shapes.

    Attributes:
        kind: What they compute.
        layout: The passes.
        texts: Their kernels' names, and what each needs.
        kernels: What `load` made of the module.
        request: A call of these shapes.
        shapes: Strides of batch, head and row of the kind's operands.
        given: For each pass, the numbers that go with each of its run-time tensors.
        count: (batch, head) pairs, of query heads or of key heads.
        paired: Are they listed?
    """

    kind: Kind
    layout: Layout
    texts: tuple[PassSource, ...]
    kernels: dict[str, Any]
    request: Request
    shapes: tuple[tuple[int, ...], ...]
    given: tuple[tuple[tuple[int, ...], ...], ...]
    count: int
    paired: bool

    @property
    def shape(self) -> Shape:
        """The call's sizes."""
        return self.request.shape

    @property
    def tokens(self) -> tuple[tuple[Tokens, int], ...]:
        """How long each list of tokens is that passes read."""
        own = zip(self.texts, self.given, strict=True)
        each = [pair for text, numbers in own for pair in zip(text.roles, numbers, strict=True)]
        return tuple({role.tokens: found[2] for role, found in each if isinstance(role, TokenList)}.items())

    @property
    def device(self) -> Device:
        """Where it runs."""
        return described(self.request.q.device)

    @property
    def rows(self) -> tuple[int, int]:
        """Positions, half-open."""
        return self._queries if self.kind.direction == "queries" else (0, self.request.kv_len)

    @property
    def columns(self) -> tuple[int, int]:
        """Positions, half-open."""
        return (0, self.request.kv_len) if self.kind.direction == "queries" else self._queries

    @property
    def _queries(self) -> tuple[int, int]:
        return self.request.q_offset, self.request.q_offset + self.request.q_len

    @property
    def heads(self) -> int:
        """That rows have."""
        return self.request.num_q_heads if self.kind.direction == "queries" else self.request.num_kv_heads

    @property
    def parts(self) -> tuple[tuple[int, torch.dtype], ...]:
        """What passes keep of a row: widths and dtypes."""
        known = {"HEAD_DIM": self.request.q.shape[-1], "V_HEAD_DIM": self.request.v.shape[-1], "": 1}
        narrow = torch.float32 if self.request.q.dtype == torch.float32 else torch.float16
        return tuple((known[part.width], narrow if part.scaled else torch.float32) for part in self.kind.parts)

    @property
    def wide(self) -> bool:
        """Does an offset within the columns of one head pass 2^31?"""
        keys = self.kind.direction == "queries"
        places = [self.kind.operands.index(name) for name in (("k", "v") if keys else ("q", "do"))]
        length = self.request.kv_len if keys else self.request.q_len
        return length * max(self.shapes[place][2] for place in places) > MAX_INT32


def plan_launches(job: Problem, tiles: Sequence[Tile]) -> LaunchPlan:
    """Settles all that shapes decide, with a tile for each pass."""
    return _LaunchPlanner(job).passes(tiles)


@dataclass
class _LaunchPlanner:
    job: Problem
    schedule: LaunchPlan = field(default_factory=LaunchPlan)

    def passes(self, tiles: Sequence[Tile]) -> LaunchPlan:
        job = self.job
        self.nothing = len(job.kind.operands)  # stands where a kernel reads or writes nothing: some float32 tensor
        self.pairs = len(job.kind.tensors)
        place = self.pairs + 1
        self.first_region = place + sum(len(one.roles) for one in job.texts)
        self.parts = self.part_regions()
        for one, text, numbers, tile in zip(job.layout.passes, job.texts, job.given, tiles, strict=True):
            self.one_pass(one, text, numbers, place, tile)
            place += len(text.roles)
        return self.schedule

    def region(self, count: int, dtype: torch.dtype) -> int:
        """The place of a new region among a call's tensors."""
        return self.first_region + self.schedule.workspace.add(count, dtype)

    def regions(self, rows: int) -> tuple[int, ...]:
        """Places for the results of so many rows."""
        return tuple(self.region(rows * width, dtype) for width, dtype in self.job.parts)

    def part_regions(self) -> list[tuple[int, ...]]:
        """Results between passes; two at most.

        What one pass writes the next reads, never in place: a careful launch reads again.
        """
        first, stop = self.job.rows
        rows = self.job.request.batch_size * self.job.heads * (stop - first)
        between = sum(not one.final for one in self.job.texts)
        return [self.regions(rows) for _ in range(min(between, 2))]

    def one_pass(self, one: Pass, text: PassSource, numbers: Sequence[Sequence[int]], place: int, tile: Tile) -> None:
        job, request = self.job, self.job.request
        if one.skips(*job.rows):
            return
        tiles = row_tiles(one, job.rows, _listed(one, text.roles, numbers), tile.block_m)
        if tiles * job.count == 0:
            return
        programs = tiles * job.count * tile.splits
        reads, writes = self.of_pass(text)
        split = self.regions(programs * tile.block_m) if tile.splits > 1 else writes
        marks = self.region(programs * tile.block_m, torch.float32) if text.leaky else self.nothing
        scalars = [tiles, tile.splits, programs]
        alike = self.alike(numbers)
        sides = sides_of(text.boxes, tile.block_m, tile.block_n)
        whole = [*self.fixed(*reads, *split, marks), *_tensors(numbers, place), *self.numbers(scalars)]
        kernel = job.kernels[text.name]
        fits = all(_fits(walk, job.columns, tile.block_n) for walk in one.walks)
        self.add(kernel, _grid(tiles * tile.splits, job.count), whole, tile, sides, alike, fits=fits)
        if text.leaky:
            scans = -(-programs // SCANNED), 1, 1
            self.add(kernel, scans, whole, unhurried(tile), sides, alike, fits=fits, careful=True)
        if tile.splits > 1:
            fixed = [*map(Pointer, split), *self.fixed(*reads, *writes, self.nothing)]
            whole = [*fixed, *_tensors(numbers, place), *self.numbers(scalars)]
            chunks = -(-max(request.q.shape[-1], request.v.shape[-1]) // COMBINED)
            combine = job.kernels[f"{text.name}_combine"]
            self.add(combine, (tiles * job.count * chunks, 1, 1), whole, tile, sides, alike, dims=COMBINED)

    def alike(self, numbers: Sequence[Sequence[int]]) -> tuple[Any, ...]:
        """What Triton compiles in: strides, heads; of run-time tensors the inner strides, and if any is wide."""
        kinds = tuple((*own[3::2], max(own) > MAX_INT32) for own in numbers)
        return (*self.job.shapes, *self.head_counts, *kinds)

    @property
    def head_counts(self) -> tuple[int, int]:
        """Query heads, and how many of them read one key head."""
        request = self.job.request
        return request.num_q_heads, request.group_size

    def of_pass(self, text: PassSource) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What a pass reads and what it writes."""
        if not (text.resume or not text.final):
            nothing = (self.nothing,) * len(self.job.parts)
            return nothing, nothing
        read, write = self.parts[-1], self.parts[0]
        self.parts.reverse()
        return read, write

    def fixed(self, *pointers: int) -> list[Any]:
        """Operands with their strides, vectors; parts read, parts written, the pairs, the rows' marks."""
        arguments: list[Any] = []
        for number, strides in enumerate(self.job.shapes):
            arguments += [Pointer(number), *strides]
        *parts, marks = pointers
        vectors = range(len(self.job.shapes), self.pairs)
        return [*arguments, *map(Pointer, (*vectors, *parts, self.pairs, marks))]

    def numbers(self, scalars: list[int]) -> list[Any]:
        request = self.job.request
        lengths = [request.q_len, request.kv_len, request.q_offset]
        entries = [request.batch_size] * ("batch_size" in numbers_of(self.job.layout.condition))
        return [*self.head_counts, *lengths, *scalars, request.scale * math.log2(math.e), *entries]

    def add(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        arguments: list[Any],
        tile: Tile,
        sides: tuple[int, ...],
        alike: tuple[Any, ...],
        *,
        fits: bool = True,
        careful: bool = False,
        dims: int = 0,
    ) -> None:
        """A launch, of all dimensions of a row or of `dims`; it `fits` if there are columns for each whole tile."""
        request = self.job.request
        head_dim, v_head_dim = request.q.shape[-1], request.v.shape[-1]
        widths = (dims, dims) if dims else padded(head_dim, v_head_dim, request.q.dtype.itemsize)
        precision = "tf32" if request.tf32 else "ieee"
        constants = (
            head_dim, v_head_dim, *widths,
            tile.block_m, tile.block_n, self.job.paired, precision, self.job.wide, fits,
            tile.splits > 1, tile.apart, careful,
            *sides,
        )  # fmt: skip
        self.schedule.steps.append(step(kernel, grid, arguments, constants, tile, alike))


def step(
    kernel: Any,
    grid: tuple[int, int, int],
    arguments: list[Any],
    constants: tuple[Any, ...],
    tile: Tile,
    alike: tuple[Any, ...],
) -> KernelLaunch:
    """A launch whose arguments are numbers, and pointers to the call's tensors."""
    pointers = tuple((i, one.number) for i, one in enumerate(arguments) if isinstance(one, Pointer))
    plain = (0 if isinstance(one, Pointer) else one for one in arguments)
    return KernelLaunch(kernel, grid, [*plain, *constants], pointers, constants, tile, alike)


def _fits(walk: Walk, columns: tuple[int, int], block_n: int) -> bool:
    """Are there columns for a whole tile wherever one may start, so that loads need no mask?"""
    first, stop = columns
    match walk.keys:
        case Affine(step, _):
            return (stop - first) // step >= block_n
        case Blocks(_, size):
            return first % size == 0 and min(size, stop - first) >= block_n
    return True


def _grid(tiles: int, count: int) -> tuple[int, int, int]:
    """Tiles along the first axis, then (batch, head) pairs, some of them perhaps past the last."""
    along = min(count, MAX_GRID)
    return tiles, along, -(-count // along)


@dataclass(frozen=True)
class Pointer:
    """The address of a call's tensor of that number."""

    number: int


def _tensors(numbers: Sequence[Sequence[int]], place: int) -> list[Any]:
    """Each run-time tensor of a pass with its numbers."""
    return [argument for i, own in enumerate(numbers) for argument in (Pointer(place + i), *own)]


def _listed(one: Pass, roles: Sequence[Role], numbers: Sequence[Sequence[int]]) -> int:
    """How long the list is that rows come from, where they do."""
    return numbers[roles.index(TokenList(one.rows.tokens))][2] if isinstance(one.rows, Listed) else 0
