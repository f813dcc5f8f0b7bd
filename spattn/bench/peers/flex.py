"""FlexAttention, compiled by its default options, or tuned. Its block mask is built once for both, before the timing.

`forget` is to be called after each workload: compiled code is kept by mask, and many masks fill the compiler's cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch._dynamo
import torch._functorch.config
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from spattn.bench.case import Case
from spattn.bench.memory import measured, total
from spattn.bench.peers.peer import Peer, Prepared
from spattn.bench.timing import once

BLOCK = 128
TABLES = 4
"""int32 tables of blocks that a mask holds: partial and full ones, by queries and by keys."""
TUNED = "max-autotune-no-cudagraphs"


@dataclass
class Built:
    """A block mask, and what it took."""

    mask: Any
    first_ms: float
    again_ms: float
    peak_bytes: int | None

    @property
    def kept_bytes(self) -> int:
        """Of its tables."""
        mask = self.mask
        parts = (
            *(mask.kv_num_blocks, mask.kv_indices, mask.full_kv_num_blocks, mask.full_kv_indices),
            *(mask.q_num_blocks, mask.q_indices, mask.full_q_num_blocks, mask.full_q_indices),
        )
        return sum(part.nbytes for part in parts if part is not None)


@dataclass
class BlockMasks:
    """The block mask of the last case that was asked about."""

    _last: tuple[Case, Built] | None = None

    def of(self, case: Case) -> Built:
        """The mask; built twice if it is new, compiling and compiled."""
        if self._last is None or self._last[0] is not case:
            self._last = None
            self._last = case, _built(case)
        return self._last[1]

    def forget(self) -> None:
        """Frees it, and what was compiled for it."""
        self._last = None
        torch._dynamo.reset()


@dataclass(frozen=True)
class FlexAttention(Peer):
    """FlexAttention in one mode of its compiler."""

    name: str = "FlexAttention"
    masks: BlockMasks = field(default_factory=BlockMasks)
    mode: str | None = None

    def refusal(self, case: Case) -> str | None:
        """Its tables may not fit into the GPU, and to try that may end more than the try."""
        need, there = table_bytes(case), total(case.device)
        if there is None or need < there:
            return None
        return f"its tables of blocks alone are {need / 2**30:.0f} GiB, and the GPU has {there / 2**30:.0f}"

    def prepare(self, case: Case) -> Prepared:
        """Builds the mask, if the other mode has not."""
        allow_many()
        built = self.masks.of(case)
        flex = torch.compile(flex_attention, dynamic=False, mode=self.mode)
        grouped = case.workload.grouped

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = flex(q, k, v, block_mask=built.mask, enable_gqa=grouped)
            return out

        return Prepared(attend, built.first_ms, built.again_ms, built.kept_bytes, built.peak_bytes)


def table_bytes(case: Case) -> int:
    """Of the tables that `create_block_mask` returns."""
    return TABLES * 4 * len(case.workload.mask_heads) * (-(-case.workload.length // BLOCK)) ** 2


def _built(case: Case) -> Built:
    allow_many()
    first, _ = _create(case)
    with measured(case.device) as memory:
        again, mask = _create(case)
    return Built(mask, first, again, memory.peak)


def _create(case: Case) -> tuple[float, BlockMask]:
    one = case.workload
    found: list[BlockMask] = []

    def build() -> None:
        if one.by_head:
            found.append(_evaluated(case))
        else:
            create = torch.compile(create_block_mask)
            found.append(create(case.mask, None, None, one.length, one.length, device=str(case.device)))

    return once(build, case.device), found[0]


def _evaluated(case: Case) -> BlockMask:
    """The same without a compiler, which takes minutes over a mask that reads a table by head."""
    one = case.workload
    blocks = -(-one.length // BLOCK)
    seen, whole = (torch.zeros(1, one.q_heads, blocks, blocks, dtype=torch.bool, device=case.device) for _ in range(2))
    for h in range(one.q_heads):
        for row, q in enumerate(torch.split(torch.arange(one.length, device=case.device), BLOCK)):
            pairs = torch.nn.functional.pad(case.allowed(0, h, q), (0, blocks * BLOCK - one.length))
            parts = pairs.view(len(q), blocks, BLOCK)
            seen[0, h, row], whole[0, h, row] = parts.any(2).any(0), parts.all(2).all(0)
    (count, order), (full_count, full_order) = _listed(seen & ~whole), _listed(whole)
    return BlockMask.from_kv_blocks(
        count, order, full_count, full_order, BLOCK, case.mask, seq_lengths=(one.length, one.length)
    )


def _listed(marks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many blocks each row has, and all blocks, those first."""
    order = torch.argsort(marks.to(torch.int8), dim=-1, descending=True, stable=True)
    return marks.sum(-1).to(torch.int32), order.to(torch.int32)


def allow_many() -> None:
    """Compiled code for many masks at a time, and a backward pass that may run again."""
    torch._dynamo.config.recompile_limit = 1000
    torch._dynamo.config.accumulated_recompile_limit = 10000
    torch._functorch.config.donated_buffer = False
