"""A decoder's steps on a GPU: one launch a step for each group of heads, none of whose numbers is read from a tensor.

A program has the query heads that share keys, at some positions of a request, and a share of the tiles of keys that
these positions visit. How many shares there are depends on the request alone, so its bits depend on nothing else in the
batch. The last program of a tile to finish adds the shares up, always alike.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from spattn.call.positions import Positions
from spattn.call.prepared import Prepared
from spattn.call.request import CompiledPattern
from spattn.call.shape import Shape, dtype_name
from spattn.codegen.decode import DecodeSource
from spattn.codegen.tile import Tile, next_power, padded
from spattn.cost.samples import samples
from spattn.cost.sizes import Sizes
from spattn.cost.trips import reach
from spattn.gpu.devices import described
from spattn.gpu.forward import current
from spattn.gpu.frame import Frame
from spattn.gpu.inputs import RoleInputs
from spattn.gpu.kernel_launch import MAX_INT32, Kernel, KernelLaunch, kind_of
from spattn.gpu.lacks import lacking
from spattn.gpu.launch_plan import LOG2_E
from spattn.gpu.limits import beyond
from spattn.gpu.load import load
from spattn.layout.boxes import sides_of
from spattn.layout.ir import Layout

PROGRAMS = 2  # of a processor, where a step has one request
MOST_SPLITS = 32  # which one program combines
MIN_TILES = 1
BY_REQUEST = ("q_lens", "kv_lens")  # what each request has for itself
ROWS = 64  # of a tile of several positions


class Cache(Protocol):
    """Where keys and values are, as kernels read it: element (block, slot, head) of two tensors."""

    @property
    def keys(self) -> torch.Tensor:
        """`[blocks, slots, num_kv_heads, head_dim]`, any strides, last dimension dense."""
        ...

    @property
    def values(self) -> torch.Tensor:
        """The same of v_head_dim."""
        ...

    @property
    def kv_lens(self) -> torch.Tensor:
        """int32 `[batch]`, keys of each request."""
        ...

    @property
    def capacity(self) -> int:
        """Keys of a request, at most."""
        ...

    @property
    def page_size(self) -> int:
        """Slots of a block where a table lists the blocks of each request; 0 where a request is a block."""
        ...

    @property
    def table(self) -> torch.Tensor | None:
        """int32, the blocks of each request: a row for each, or one list behind the other."""
        ...

    @property
    def table_starts(self) -> torch.Tensor | None:
        """int32 `[batch + 1]`, where those of each request begin, where they lie one behind the other."""
        ...

    @property
    def window(self) -> int:
        """Slots of a ring that positions take in turn; 0 where each position has a slot."""
        ...

    @property
    def window_base(self) -> int:
        """The first of these."""
        ...

    @property
    def kept(self) -> torch.Tensor | None:
        """int32 `[pieces, 5]` of a ring: step, residue, first, count and slot of keys that have slots for ever."""
        ...

    @property
    def k_scale(self) -> torch.Tensor | None:
        """float32 `[1]` or `[num_kv_heads]`, the factor of what is stored."""
        ...

    @property
    def v_scale(self) -> torch.Tensor | None:
        """The same of values."""
        ...


@dataclass(frozen=True)
class StepSizes:
    """What a decoder is made for.

    Attributes:
        num_q_heads, num_kv_heads: Heads.
        head_dim, v_head_dim: Their widths.
        max_batch: Requests of a step, at most.
        max_kv_len: Keys of a request, at most.
        max_new: Rows of a request in a step, at most.
        dtype: Of q and out.
        device: Where all is.
        tf32: May float32 products use TF32?
    """

    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    max_batch: int
    max_kv_len: int
    max_new: int
    dtype: torch.dtype
    device: torch.device
    tf32: bool = False

    @property
    def group_size(self) -> int:
        """Query heads that share one of k and v."""
        return self.num_q_heads // self.num_kv_heads

    @property
    def shape(self) -> Shape:
        """The greatest step as a call."""
        return Shape(
            batch_size=self.max_batch,
            num_q_heads=self.num_q_heads,
            num_kv_heads=self.num_kv_heads,
            q_len=self.max_new,
            kv_len=self.max_kv_len,
            q_offset=self.max_kv_len - self.max_new,
            k_offset=0,
            num_keys=self.max_kv_len,
            head_dim=self.head_dim,
            v_head_dim=self.v_head_dim,
            dtype=dtype_name(self.dtype),
            tf32=self.tf32,
        )

    @property
    def positions(self) -> Positions:
        """Where rows and keys stand: each request's own."""
        return Positions(0, self.max_new, 0, self.max_kv_len, self.max_kv_len, BY_REQUEST)


@dataclass(frozen=True)
class StepTensors:
    """The tensors of a step.

    Attributes:
        q: `[batch, num_q_heads, q_len, head_dim]`, or packed `[1, num_q_heads, tokens, head_dim]`.
        out: The same of v_head_dim.
        lse: float32 `[batch, num_q_heads, q_len]`, or packed `[1, num_q_heads, tokens]`; None if it is not wanted.
        cu_seqlens_q: int32 `[batch + 1]` of packed rows.
        sinks: float32 `[num_q_heads]`.
        scale: Factor of scores, above 0.
    """

    q: torch.Tensor
    out: torch.Tensor
    lse: torch.Tensor | None
    cu_seqlens_q: torch.Tensor | None
    sinks: torch.Tensor | None
    scale: float


def refusal(plans: CompiledPattern, sizes: StepSizes) -> str | None:
    """Why no kernel serves steps of a pattern, as a sentence; None if one does."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if sizes.device.type != "cuda" and not interpreted:
        return f"the decoder is on {sizes.device.type}, and Triton's kernels run on GPUs"
    if interpreted and sizes.dtype == torch.bfloat16:
        return "Triton's interpreter (TRITON_INTERPRET=1) computes bfloat16 wrongly; use float16 or float32"
    why = beyond(sizes.shape)
    if why is not None:
        return why
    if plans.reads_batch:
        return "the pattern tells batch entries apart, and a step has requests"
    for values in plans.groups(1, sizes.num_q_heads):
        lack = lacking(plans, values, True, BY_REQUEST)
        if lack is not None:
            return f"each request has a length of its own, and the pattern reads {lack.what}"
    return None


class GpuDecoder:
    """Steps of one pattern.

    Args:
        plans: The compiled pattern.
        sizes: What steps may have.
        tile: Instead of the one that suits.

    """

    def __init__(self, plans: CompiledPattern, sizes: StepSizes, tile: Tile | None = None) -> None:
        groups = plans.groups(1, sizes.num_q_heads)
        self._groups = [
            _HeadGroup(plans, values, heads if len(groups) > 1 else None, sizes, tile)
            for values, heads in groups.items()
        ]

    def run(self, step: StepTensors, cache: Cache, tensors: Mapping[str, torch.Tensor]) -> None:
        """Fills out and lse of all rows of all requests; nothing else is written."""
        lengths = dict.fromkeys(BY_REQUEST, cache.kv_lens)  # of rows nothing is derived
        prepared = Prepared({**tensors, **lengths})
        with current(step.q.device):
            for group in self._groups:
                group.run(step, cache, prepared)


class _HeadGroup:
    """Heads with one layout."""

    def __init__(
        self,
        plans: CompiledPattern,
        values: tuple[bool, ...],
        heads: np.ndarray[Any, Any] | None,
        sizes: StepSizes,
        tile: Tile | None,
    ) -> None:
        self._sizes = sizes
        self._layout = plans.layout_of(values)
        self._source = plans.decode_source(values)
        self._function = load(plans.publish(self._source.text), self._source.text)["decode"]
        frame = Frame(sizes.positions, sizes.max_batch, sizes.num_q_heads, sizes.device)
        self._inputs = RoleInputs(self._source.roles, frame)
        self._launchers = {
            packed: _Launcher(self._source, self._function, self._layout, sizes, packed, listed, tile)
            for packed, listed in self._ways(heads)
        }

    def _ways(self, heads: np.ndarray[Any, Any] | None) -> list[tuple[bool, np.ndarray[Any, Any] | None]]:
        """Query heads that share keys together, where all are of the group and alike; and one by one."""
        size = self._sizes.group_size
        ways: list[tuple[bool, np.ndarray[Any, Any] | None]] = [(False, heads)]
        if self._source.alike and heads is None:
            ways.append((True, None))
        elif self._source.alike and heads is not None:
            own, counts = np.unique(heads // size, return_counts=True)
            if (counts == size).all():
                ways.append((True, own))
        return ways

    def run(self, step: StepTensors, cache: Cache, prepared: Prepared) -> None:
        """One launch."""
        inputs = self._inputs.tensors(prepared)
        numbers = self._inputs.numbers(inputs)
        by_head = any(one[1] for one in numbers)
        packed = True in self._launchers and not by_head
        self._launchers[packed].run(step, cache, inputs, numbers)


class _Launcher:
    """The kernel of a group of heads, with what its launches share."""

    def __init__(
        self,
        source: DecodeSource,
        function: Any,
        layout: Layout,
        sizes: StepSizes,
        packed: bool,
        listed: np.ndarray[Any, Any] | None,
        tile: Tile | None,
    ) -> None:
        self._source, self._function, self._sizes, self._layout = source, function, sizes, layout
        self._group = sizes.group_size if packed else 1
        self._positions = self._positions_each()
        rows = next_power(self._group * self._positions)
        self._tile = tile or _usual_tile(sizes, rows)
        if self._tile.block_m < rows:
            raise ValueError(f"a tile of {self._tile.block_m} rows for {rows}")
        self._heads = len(listed) if listed is not None else sizes.num_q_heads // self._group
        self._listed = None if listed is None else torch.tensor(listed, dtype=torch.int32, device=sizes.device)
        self._each = -(-sizes.max_new // self._positions)
        self._splits = self._splits_for()
        self._one = torch.ones(1, dtype=torch.float32, device=sizes.device)
        self._known: dict[Any, tuple[Kernel, KernelLaunch]] = {}

    def _positions_each(self) -> int:
        """Positions of a tile: one where rows of a pass are no neighbours, else as many as fill its rows."""
        if self._sizes.max_new == 1 or not self._source.rows_alike:
            return 1
        return max(min(1 << (self._sizes.max_new - 1).bit_length(), ROWS // self._group), 1)

    def _splits_for(self) -> int:
        """Programs that share the keys of a tile, at most: they fill the device where a step has one request."""
        device = described(self._sizes.device)
        wanted = max(int(PROGRAMS * device.processors) // (self._heads * self._each), 1)
        tiles = max(_tiles_at(self._layout, self._sizes, part, self._tile) for part in range(1, 9))
        each = max(-(-tiles // min(wanted, MOST_SPLITS)), MIN_TILES)
        return max(-(-tiles // each), 1)

    @cached_property
    def _workspace(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Parts, their lse, and how many have arrived of each tile; the kernel leaves the last at 0."""
        sizes = self._sizes
        tiles = (sizes.max_batch * self._each + sizes.max_batch) * self._heads
        rows = tiles * self._splits * self._positions * self._group if self._splits > 1 else 1
        part = torch.empty(rows * sizes.v_head_dim, dtype=torch.float32, device=sizes.device)
        lse = torch.empty(rows, dtype=torch.float32, device=sizes.device)
        return part, lse, torch.zeros(tiles, dtype=torch.int32, device=sizes.device)

    def run(
        self, step: StepTensors, cache: Cache, inputs: Sequence[torch.Tensor], numbers: Sequence[tuple[int, ...]]
    ) -> None:
        """One launch."""
        part, part_lse, arrived = self._workspace
        none, nothing = arrived, part_lse  # stand where the kernel reads nothing
        cu = step.cu_seqlens_q
        tensors = [
            step.q, cache.keys, cache.values, step.out, nothing if step.lse is None else step.lse, part, part_lse, arrived, cache.kv_lens,
            none if cu is None else cu,
            none if cache.table is None else cache.table,
            none if cache.table_starts is None else cache.table_starts,
            none if cache.kept is None else cache.kept,
            self._one if cache.k_scale is None else cache.k_scale,
            self._one if cache.v_scale is None else cache.v_scale,
            nothing if step.sinks is None else step.sinks,
            none if self._listed is None else self._listed,
            *inputs,
        ]  # fmt: skip
        said = (
            tuple((tensor.stride(), tensor.dtype, tensor.data_ptr() % 16 == 0) for tensor in tensors[:5]),
            step.q.shape, cache.keys.shape, cache.kv_lens.shape, cache.capacity, cu is None, step.lse is None, cache.page_size, cache.window,
            cache.window_base, None if cache.table is None else cache.table.stride(), cache.table_starts is None,
            None if cache.kept is None else cache.kept.shape, step.sinks is None, step.scale,
            *((None if one is None else one.shape) for one in (cache.k_scale, cache.v_scale)),
            *numbers,
        )  # fmt: skip
        known = self._known.get(said)
        if known is None:
            if len(self._known) >= 256:
                self._known.clear()
            known = self._known[said] = self._made(step, cache, numbers)
        kernel, launch = known
        if kernel.compiled is None:
            launch.first(tensors)
        else:
            stream = torch._C._cuda_getCurrentRawStream(step.q.device.index)
            launch.again([tensor.data_ptr() for tensor in tensors], stream)

    def _made(self, step: StepTensors, cache: Cache, numbers: Sequence[tuple[int, ...]]) -> tuple[Kernel, KernelLaunch]:
        sizes, source, tile = self._sizes, self._source, self._tile
        batch, ragged = cache.kv_lens.shape[0], step.cu_seqlens_q is not None
        q_len = step.q.shape[2]
        values = {
            **_strides("q", step.q, "bhm"), **_strides("o", step.out, "bhm"), **_strides("l", step.lse, "bhm"),
            **_strides("k", cache.keys, "bnh"), **_strides("v", cache.values, "bnh"),
            "stride_table": -1 if cache.table is None or cache.table_starts is not None else cache.table.stride(0),
            "ring_slots": max(cache.window, 1),
            "ring_base": cache.window_base,
            "blocks": cache.keys.shape[0],
            "capacity": min(cache.capacity, sizes.max_kv_len),
            "stride_k_scale": _stride_of(cache.k_scale),
            "stride_v_scale": _stride_of(cache.v_scale),
            "batch_size": batch,
            "q_len": q_len,
            "qk_scale": step.scale * LOG2_E,
            **dict(zip(self._names, (number for own in numbers for number in own), strict=True)),
        }  # fmt: skip
        if ragged:  # all rows lie in one batch entry
            values |= {"stride_qb": 0, "stride_ob": 0, "stride_lb": 0}
        block_d, block_dv = padded(sizes.head_dim, sizes.v_head_dim, sizes.dtype.itemsize)
        sides = sides_of(source.boxes, tile.block_m, tile.block_n)
        fixed = {
            "heads": self._heads,
            "splits": self._splits,
            "num_q_heads": sizes.num_q_heads,
            "group_size": sizes.group_size,
            "HEAD_DIM": sizes.head_dim,
            "V_HEAD_DIM": sizes.v_head_dim,
            "BLOCK_D": block_d,
            "BLOCK_DV": block_dv,
            "BLOCK_M": tile.block_m,
            "BLOCK_N": tile.block_n,
            "POSITIONS": self._positions,
            "SPLITS": 1 << (self._splits - 1).bit_length(),
            "BATCH": 1 << sizes.max_batch.bit_length(),
            "GROUP": self._group,
            "PAGE_SIZE": cache.page_size,
            "KEPT": -1 if not cache.window else 0 if cache.kept is None else cache.kept.shape[0],
            "IN_ORDER": self._is_in_order(cache),
            "RAGGED": ragged,
            "LISTED_HEADS": self._listed is not None,
            "HAS_SINKS": step.sinks is not None,
            "HAS_LSE": step.lse is not None,
            "HAS_SCALES": cache.k_scale is not None or cache.v_scale is not None,
            "PRECISION": "tf32" if sizes.tf32 else "ieee",
            **dict(zip(source.signature.names[len(source.signature.names) - len(sides) :], sides, strict=True)),
        }
        fixed |= {one.name: values[one.name] for one in source.signature.arguments if one.name in values}
        pointers = {name: i for i, name in enumerate(POINTERS)}
        pointers |= {f"t{i}_ptr": len(POINTERS) + i for i in range(len(source.roles))}
        alike = tuple(kind_of(values[one.name]) for one in source.signature.arguments if one.what == "stride")
        alike += tuple(kind_of(number) for own in numbers for number in own)
        kernel = Kernel.of(self._function, source.signature, fixed, pointers, tile, alike)
        if ragged:
            extra = batch if self._positions > 1 else 0
            tiles = -(-q_len // self._positions) + extra
        else:
            tiles = batch * -(-q_len // self._positions)
        return kernel, kernel.launch((tiles * self._splits * self._heads, 1, 1), values)

    def _is_in_order(self, cache: Cache) -> bool:
        """Does each position have the slot of its number, and are those of a tile less than 2^31 elements apart?"""
        if cache.page_size or cache.window:
            return False
        stride = max(cache.keys.stride(1), cache.values.stride(1))
        return 2 * self._tile.block_n * self._source.widest_step * stride <= MAX_INT32

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """Of the numbers of run-time tensors."""
        return tuple(one.name for line in self._source.signature.inputs for one in line[1:])


POINTERS = (
    "q_ptr", "k_ptr", "v_ptr", "out_ptr", "lse_ptr", "part_ptr", "part_lse_ptr", "arrived_ptr", "kv_lens_ptr",
    "cu_seqlens_ptr", "table_ptr", "table_starts_ptr", "kept_ptr", "k_scale_ptr", "v_scale_ptr", "sinks_ptr",
    "heads_ptr",
)  # fmt: skip
"""Of the kernel, in the order in which a launch has the tensors."""


def _strides(letter: str, tensor: torch.Tensor | None, axes: str) -> dict[str, int]:
    strides = (0, 0, 0) if tensor is None else tensor.stride()
    return {f"stride_{letter}{axis}": stride for axis, stride in zip(axes, strides, strict=False)}


def _stride_of(scale: torch.Tensor | None) -> int:
    """Between heads."""
    return 0 if scale is None or scale.shape[0] == 1 else scale.stride(0)


def _usual_tile(sizes: StepSizes, rows: int) -> Tile:
    """Tiles that keep some 64 KiB of keys and values on their way."""
    width = max(sizes.head_dim, sizes.v_head_dim) * sizes.dtype.itemsize
    block_n = max(16, min(64, 1 << int(math.log2(16384 / width))))
    return Tile(rows, block_n, 4, 3)


def _tiles_at(layout: Layout, sizes: StepSizes, eighth: int, tile: Tile) -> int:
    """Tiles of keys that the last position of a request visits which has this part of the most keys."""
    kv_len = max(sizes.max_kv_len * eighth // 8, 1)
    width = max(sizes.head_dim, sizes.v_head_dim)
    one = Sizes(1, kv_len, kv_len - 1, 1, 1, width, sizes.dtype.itemsize)
    total = 0.0
    for each in layout.passes:
        seen = samples(each, one, (1,))
        for walk in each.walks:
            full, masked = reach(walk, seen, one, each.residues).steps(tile.block_n)
            total += float((full + masked).max())
    return max(math.ceil(total), 1)
