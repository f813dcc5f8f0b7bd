"""Caches of each kind, full of NaN, and the requests that tests put into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from spattn import oracle, serving
from spattn.frontend.syntax import Node
from spattn.relation.liveness import Liveness

NAN = float("nan")
PAGED = "rows", "rows HND", "csr", "flashinfer", "flashinfer HND"
KINDS = ("dense", "strided", "flash attention", *PAGED)
"""Of storage without a ring."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a cache; `tokens` is what a request may hold."""

    batch: int = 2
    heads: int = 2
    dim: int = 16
    v_dim: int = 8
    tokens: int = 40
    page_size: int = 4
    dtype: torch.dtype = torch.float32


def cache_of(kind: str, shape: Shape, seed: int = 0, device: str = "cpu", **scales: Any) -> serving.Storage:
    """An empty cache whose slots hold NaN, with pages in any order."""
    batch, size, pages = shape.batch, shape.page_size, -(-shape.tokens // shape.page_size)
    generator = torch.Generator().manual_seed(seed)
    lens = torch.zeros(batch, dtype=torch.int32, device=device)

    def empty(*sizes: int) -> tuple[Tensor, Tensor]:
        widths = (shape.dim, shape.v_dim)
        k, v = (torch.full((*sizes, width), NAN, dtype=torch.float32, device=device) for width in widths)
        return k.to(shape.dtype), v.to(shape.dtype)

    # some pages are nobody's
    table = torch.randperm(batch * pages + 3, generator=generator)[: batch * pages].int().view(batch, pages).to(device)
    indptr = torch.arange(batch + 1, dtype=torch.int32, device=device) * pages
    total = batch * pages + 3
    match kind:
        case "dense":
            return serving.Dense(*empty(batch, shape.heads, shape.tokens), lens, **scales)
        case "strided":
            k, v = empty(shape.tokens, batch, shape.heads)
            return serving.Dense(k.permute(1, 2, 0, 3), v.permute(1, 2, 0, 3), lens, **scales)
        case "flash attention":
            named = {f"{name[0]}_descale": scale for name, scale in scales.items()}
            rows = torch.randperm(batch + 2, generator=generator)[:batch].int().to(device)
            k, v = empty(batch + 2, shape.tokens, shape.heads)
            return serving.from_flash_attention(k, v, lens, cache_batch_idx=rows, **named)
        case "rows":
            return serving.Paged(*empty(total, size, shape.heads), table, lens, **scales)
        case "rows HND":
            return serving.Paged(*empty(total, shape.heads, size), table, lens, "HND", **scales)
        case "csr":
            return serving.Paged.from_csr(*empty(total, size, shape.heads), indptr, table.flatten(), lens, **scales)
        case "flashinfer":
            k, _ = empty(total, 2, size, shape.heads)
            pair: Any = k if shape.dim == shape.v_dim else (k[:, 0], empty(total, 2, size, shape.heads)[1][:, 1])
            return serving.from_flashinfer(pair, indptr, table.flatten(), kv_lens=lens, **scales)
        case "flashinfer HND":
            k, v = empty(total, 2, shape.heads, size)
            pair = (k[:, 0], v[:, 1])
            return serving.from_flashinfer(pair, indptr, table.flatten(), kv_lens=lens, kv_layout="HND", **scales)
    raise AssertionError(kind)


def ring_of(live: Liveness, shape: Shape, max_new: int, rollback: int = 0, **options: Any) -> serving.Ring:
    """An empty ring whose slots hold NaN."""
    ring = serving.Ring.allocate(
        live,
        batch=shape.batch,
        num_kv_heads=shape.heads,
        head_dim=shape.dim,
        v_head_dim=shape.v_dim,
        max_kv_len=shape.tokens,
        max_new=max_new,
        rollback=rollback,
        dtype=shape.dtype,
        **{"device": "cpu", **options},
    )
    ring.keys.fill_(NAN)
    ring.values.fill_(NAN)
    return ring


class Requests:
    """Requests that grow: their keys and values as plain tensors beside the caches that hold them."""

    def __init__(self, shape: Shape, seed: int = 0, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(seed)
        sizes = shape.batch, shape.heads, shape.tokens
        self.k, self.v = (
            torch.randn(*sizes, width, generator=generator).to(shape.dtype).to(device)
            for width in (shape.dim, shape.v_dim)
        )
        self.lens = [0] * shape.batch

    def append(self, caches: list[serving.Storage], new: list[int], *, packed: bool = True) -> None:
        """Adds so many tokens to each request, in all caches."""
        parts = [slice(n, n + m) for n, m in zip(self.lens, new, strict=True)]
        if packed:
            k, v = (
                torch.cat([x[b, :, part] for b, part in enumerate(parts)], 1).transpose(0, 1).contiguous()
                for x in (self.k, self.v)
            )
            arguments = k, v, ends_of(new, self.k.device)
        else:
            k, v = (torch.stack([x[b, :, part] for b, part in enumerate(parts)]) for x in (self.k, self.v))
            arguments = k, v, None
        for cache in caches:
            cache.append(*arguments)
        self.lens = [n + m for n, m in zip(self.lens, new, strict=True)]


def ends_of(counts: list[int], device: Any = "cpu") -> Tensor:
    """cu_seqlens of so many rows a request."""
    return torch.tensor([0, *np.cumsum(counts)], dtype=torch.int32, device=device)


def expected(
    node: Node, requests: Requests, q: list[Tensor], tensors: dict[str, Any], sinks: Tensor | None = None
) -> list[tuple[Tensor, Tensor]]:
    """(out, lse) of each request in float64; q of each is `[num_q_heads, rows, head_dim]`."""
    found = []
    for b, (rows, n) in enumerate(zip(q, requests.lens, strict=True)):
        heads, m = rows.shape[:2]
        placed = {"q_len": m, "num_keys": n, "kv_len": n, "q_offset": n - m, "k_offset": 0}
        sizes: dict[str, Any] = {"num_heads": heads, "batch_size": len(q), "tensors": tensors, "only": b}
        mask = torch.as_tensor(oracle.mask(node, **placed, **sizes))
        mask = mask[0] if mask.dim() == 4 else mask
        group = heads // requests.k.shape[1]
        k, v = (x[b, :, :n].double().cpu().repeat_interleave(group, 0) for x in (requests.k, requests.v))
        scores = (rows.double().cpu() @ k.mT * rows.shape[-1] ** -0.5).masked_fill(~mask, -torch.inf)
        if sinks is not None:
            column = sinks.double().cpu().view(-1, 1, 1).expand(-1, m, 1)
            scores, v = torch.cat([scores, column], -1), torch.cat([v, v.new_zeros(heads, 1, v.shape[2])], 1)
        some = (scores > -torch.inf).any(-1)
        out = torch.where(some[..., None], scores, 0).softmax(-1) @ v * some[..., None]
        found.append((out, torch.where(some, scores.logsumexp(-1), -torch.inf)))
    return found


def shapes(**fixed: Any) -> st.SearchStrategy[Shape]:
    """Sizes of caches, pages of one slot among them."""
    drawn: dict[str, Any] = {
        "batch": st.integers(1, 3),
        "heads": st.integers(1, 3),
        "page_size": st.sampled_from([1, 2, 3, 8, 16]),
        "dtype": st.sampled_from([torch.float32, torch.float16]),
    }
    drawn |= {name: st.just(value) for name, value in fixed.items()}
    return st.builds(Shape, **drawn)
