"""Row-block attention: what somebody with a long sequence and no compiler writes.

One call of `scaled_dot_product_attention` for each block of rows, over the span of keys that any of its rows may see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import torch
from torch.nn.functional import scaled_dot_product_attention

from spattn.bench.case import Case
from spattn.bench.peers.dense import MAX_MASK, mask_bytes
from spattn.bench.peers.peer import Peer, Prepared
from spattn.bench.timing import once

ROWS = 512


@dataclass(frozen=True)
class Part:
    """Rows, the keys that they see, and which of these; no mask where it is all."""

    rows: slice
    keys: slice
    mask: torch.Tensor | None


@dataclass(frozen=True)
class RowBlocks(Peer):
    """Blocks of 512 rows."""

    name: str = "row-block SDPA"

    def refusal(self, case: Case) -> str | None:
        """All its masks together may be as large as a dense one."""
        size = mask_bytes(case)
        return None if size <= MAX_MASK else f"its masks may take {size / 2**30:.0f} GiB"

    def prepare(self, case: Case) -> Prepared:
        """Finds the spans and cuts the masks."""
        parts: list[Part] = []
        taken = once(lambda: parts.extend(_parts(case)), case.device)
        grouped = case.workload.grouped
        kept = sum(part.mask.nbytes for part in parts if part.mask is not None)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            found = [_attend(part, q, k, v, grouped) for part in parts]
            return torch.cat(found, dim=2)

        return Prepared(attend, first_ms=taken, kept_bytes=kept)


def _attend(part: Part, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grouped: bool) -> torch.Tensor:
    rows, keys, values = q[:, :, part.rows], k[:, :, part.keys], v[:, :, part.keys]
    return scaled_dot_product_attention(rows, keys, values, attn_mask=part.mask, enable_gqa=grouped)


def _parts(case: Case) -> Iterator[Part]:
    every = torch.arange(case.workload.length, device=case.device)
    for begin, rows in zip(count(step=ROWS), torch.split(every, ROWS), strict=False):
        mask = case.masks(rows)
        seen = mask.flatten(0, 1).any(0).nonzero().flatten()
        first, stop = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 1)
        mask = mask[:, :, first:stop]
        whole = bool(mask.all())
        yield Part(slice(begin, begin + ROWS), slice(first, stop), None if whole else mask.contiguous())
