"""Launches of a step's kernel: what is compiled in, what a step fills in, and the memory that its programs share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from spattn.call.prepared import is_captured
from spattn.codegen.decode import DecodeSource
from spattn.codegen.step_constants import StepConstants
from spattn.codegen.tile import Tile
from spattn.cost.decode_tiles import paged, positions_each, splits_for, usual_tile
from spattn.errors import UnsupportedError
from spattn.gpu.devices import described
from spattn.gpu.kernel_launch import MAX_INT32, Kernel, KernelLaunch, kind_of
from spattn.gpu.launch_plan import LOG2_E
from spattn.gpu.step import Cache, StepSizes, StepTensors
from spattn.layout.ir import Layout

MAX_KNOWN = 256
ALIGNMENT = 16


class _Known(NamedTuple):
    """The tensors of a cache, and the launches that read them, by what else a step gives."""

    tensors: tuple[torch.Tensor | None, ...]
    launches: dict[Any, KernelLaunch]


class StepLauncher:
    """The kernel of heads that share a layout, with what its launches share.

    Its programs leave what they share in memory of its own: steps of one decoder run one after the other.

    Args:
        source: The kernel's text.
        function: What was loaded of it.
        layout: What it walks along.
        sizes: What steps may have.
        packed: Has a program all query heads that share keys? Else one.
        listed: Which these are, key heads or query heads; None for all.
        tile: Instead of the usual one.
        shared: Is this the launch over keys that requests share, whose rows are the last one of each?
    """

    def __init__(
        self,
        source: DecodeSource,
        function: Any,
        layout: Layout,
        sizes: StepSizes,
        packed: bool,
        listed: np.ndarray[Any, Any] | None,
        tile: Tile | None,
        *,
        shared: bool = False,
    ) -> None:
        self._source, self._function, self._sizes, self._shared = source, function, sizes, shared
        self._group = sizes.group_size if packed else 1
        rows = sizes.max_batch if shared else sizes.max_new
        self._positions = positions_each(rows, self._group, rows_alike=source.rows_alike)
        width = max(sizes.head_dim, sizes.v_head_dim)
        self._tile = tile or usual_tile(width, sizes.dtype.itemsize, self._group * self._positions)
        self._heads = len(listed) if listed is not None else sizes.num_q_heads // self._group
        self._each = -(-rows // self._positions)
        self._splits = splits_for(
            layout, sizes.max_kv_len, self._tile, self._heads * self._each, described(sizes.device)
        )
        self._listed = None if listed is None else torch.tensor(listed, dtype=torch.int32, device=sizes.device)
        self._one = torch.ones(1, dtype=torch.float32, device=sizes.device)
        self._caches: WeakKeyDictionary[Cache, _Known] = WeakKeyDictionary()

    def run(
        self, step: StepTensors, cache: Cache, inputs: Sequence[torch.Tensor], numbers: Sequence[tuple[int, ...]]
    ) -> None:
        """One launch.

        Args:
            step: The step's tensors.
            cache: Where its keys are.
            inputs: The run-time tensors of the pattern.
            numbers: Sizes and strides of each of these.
        """
        known = self._caches.get(cache)
        own = _tensors_of(cache)
        if known is None or any(one is not other for one, other in zip(known.tensors, own, strict=True)):
            known = self._caches[cache] = _Known(own, {})
        given = step.q, step.out, step.lse, step.cu_seqlens_q, step.sinks
        key = (
            *(None if one is None else (one.shape, one.stride(), one.data_ptr() % ALIGNMENT) for one in given),
            step.scale,
            step.shared_keys,
            *((one.dtype, one.data_ptr() % ALIGNMENT, *own) for one, own in zip(inputs, numbers, strict=True)),
        )
        launch = known.launches.get(key)
        if launch is None:
            if len(known.launches) >= MAX_KNOWN:
                known.launches.clear()
            launch = known.launches[key] = self._launch(step, cache, numbers)
        tensors = [*self._tensors(step, cache), *inputs]
        if launch.kernel.compiled is None:
            launch.first(tensors)
        else:
            stream = torch._C._cuda_getCurrentRawStream(step.q.device.index)
            launch.again([tensor.data_ptr() for tensor in tensors], stream)

    def prepare(self) -> None:
        """Makes what its programs share, so that the first step may be captured in a graph."""
        _ = self._workspace

    @cached_property
    def _workspace(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Parts, their lse, and how many programs of each tile have come; the kernel leaves that at 0.

        Raises:
            UnsupportedError: E061, a graph is captured, which would fill it whenever it runs and not before.
        """
        if is_captured(self._one):
            message = "the first step of its kind is captured in a graph"
            raise UnsupportedError("E061", message, hint="call it once before")
        sizes = self._sizes
        requests = 1 if self._shared else sizes.max_batch
        # packed rows of a request may begin within a tile, and so have one more
        tiles = requests * (self._each + (self._positions > 1)) * self._heads if self._splits > 1 else 1
        rows = tiles * self._splits * self._positions * self._group
        part = torch.empty(rows * sizes.v_head_dim, dtype=torch.float32, device=sizes.device)
        lse = torch.empty(rows, dtype=torch.float32, device=sizes.device)
        return part, lse, torch.zeros(tiles, dtype=torch.int32, device=sizes.device)

    def _tensors(self, step: StepTensors, cache: Cache) -> list[torch.Tensor]:
        """Those of `POINTERS`; where there is none the kernel reads nothing of what stands for it."""
        part, part_lse, arrived = self._workspace
        one = self._one
        return [
            step.q,
            cache.keys,
            cache.values,
            step.out,
            part_lse if step.lse is None else step.lse,
            part,
            part_lse,
            arrived,
            cache.kv_lens,
            arrived if step.cu_seqlens_q is None else step.cu_seqlens_q,
            arrived if cache.table is None else cache.table,
            arrived if cache.table_starts is None else cache.table_starts,
            arrived if cache.kept is None else cache.kept,
            one if cache.k_scale is None else cache.k_scale,
            one if cache.v_scale is None else cache.v_scale,
            part_lse if step.sinks is None else step.sinks,
            arrived if self._listed is None else self._listed,
            *(step.shared or (part_lse, part_lse)),
        ]

    def _launch(self, step: StepTensors, cache: Cache, numbers: Sequence[tuple[int, ...]]) -> KernelLaunch:
        signature, values = self._source.signature, self._values(step, cache, numbers)
        fixed = {**self._constants(step, cache), "heads": self._heads, "splits": self._splits}
        fixed |= {one.name: values[one.name] for one in signature.arguments if one.name in values}
        pointers = {f"{name}_ptr": i for i, name in enumerate(POINTERS)}
        pointers |= {f"t{i}_ptr": len(POINTERS) + i for i in range(len(self._source.roles))}
        strides = [int(values[one.name]) for one in signature.arguments if one.what == "stride"]
        alike = tuple(kind_of(number) for number in (*strides, *chain.from_iterable(numbers)))
        tile = paged(self._tile) if cache.page_size else self._tile
        kernel = Kernel.of(self._function, signature, fixed, pointers, tile, alike)
        batch, q_len = cache.kv_lens.shape[0], step.q.shape[2]
        if self._shared:
            tiles = -(-q_len // self._positions)
        elif step.cu_seqlens_q is None:
            tiles = batch * -(-q_len // self._positions)
        else:
            tiles = -(-q_len // self._positions) + (batch if self._positions > 1 else 0)
        return kernel.launch((tiles * self._splits * self._heads, 1, 1), values)

    def _values(self, step: StepTensors, cache: Cache, numbers: Sequence[tuple[int, ...]]) -> dict[str, float]:
        """What a launch fills in."""
        values: dict[str, float] = {}
        operands = (("q", step.q, "bhm"), ("o", step.out, "bhm"), ("l", step.lse, "bhm"))
        for letter, tensor, axes in (*operands, ("k", cache.keys, "bnh"), ("v", cache.values, "bnh")):
            strides = (0, 0, 0) if tensor is None else tensor.stride()[:3]
            values |= {f"stride_{letter}{axis}": stride for axis, stride in zip(axes, strides, strict=True)}
        if step.cu_seqlens_q is not None:  # all rows lie in one batch entry
            values |= {"stride_qb": 0, "stride_ob": 0, "stride_lb": 0}
        by_row = cache.table is not None and cache.table_starts is None
        values |= {
            "stride_table": cache.table.stride(0) if cache.table is not None and by_row else -1,
            "ring_slots": max(cache.window, 1),
            "ring_base": cache.window_base,
            "blocks": cache.keys.shape[0],
            "capacity": min(cache.capacity, self._sizes.max_kv_len),
            "max_new": self._sizes.max_new,
            "shared_keys": step.shared_keys,
            "stride_k_scale": _between_heads(cache.k_scale),
            "stride_v_scale": _between_heads(cache.v_scale),
            "batch_size": cache.kv_lens.shape[0],
            "q_len": step.q.shape[2],
            "qk_scale": step.scale * LOG2_E,
        }
        names = [one.name for line in self._source.signature.inputs for one in line[1:]]
        return values | dict(zip(names, chain.from_iterable(numbers), strict=True))

    def _constants(self, step: StepTensors, cache: Cache) -> dict[str, Any]:
        """What is compiled in."""
        sizes = self._sizes
        return StepConstants(
            tile=self._tile,
            num_q_heads=sizes.num_q_heads,
            group_size=sizes.group_size,
            head_dim=sizes.head_dim,
            v_head_dim=sizes.v_head_dim,
            itemsize=sizes.dtype.itemsize,
            positions=self._positions,
            group=self._group,
            splits=self._splits,
            batch=sizes.max_batch,
            page_size=cache.page_size,
            kept=-1 if not cache.window else 0 if cache.kept is None else cache.kept.shape[0],
            in_order=self._is_in_order(cache),
            ragged=step.cu_seqlens_q is not None,
            listed_heads=self._listed is not None,
            has_sinks=step.sinks is not None,
            has_lse=step.lse is not None,
            has_scales=cache.k_scale is not None or cache.v_scale is not None,
            shared=self._shared,
            has_shared=step.shared is not None,
            tf32=sizes.tf32,
        ).of(self._source)

    def _is_in_order(self, cache: Cache) -> bool:
        """Do the keys of a tile lie one behind the other, less than 2^31 elements apart?"""
        if cache.page_size % self._tile.block_n or cache.window:
            return False
        stride = max(cache.keys.stride(1), cache.values.stride(1))
        return 2 * self._tile.block_n * self._source.widest_step * stride <= MAX_INT32


POINTERS = (
    "q", "k", "v", "out", "lse", "part", "part_lse", "arrived", "kv_lens", "cu_seqlens", "table", "table_starts",
    "kept", "k_scale", "v_scale", "sinks", "heads", "shared", "shared_lse",
)  # fmt: skip
"""In the order in which a launch has the tensors, those of the pattern after them."""


def _tensors_of(cache: Cache) -> tuple[torch.Tensor | None, ...]:
    """What a cache is: none of these is exchanged while launches are known for them."""
    tables = cache.table, cache.table_starts, cache.kept
    return cache.keys, cache.values, cache.kv_lens, *tables, cache.k_scale, cache.v_scale


def _between_heads(scale: torch.Tensor | None) -> int:
    """The stride of a scale that each head has, 0 of one for all."""
    return 0 if scale is None or scale.shape[0] == 1 else scale.stride(0)
