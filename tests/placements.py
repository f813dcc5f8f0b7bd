"""Drawn positions of calls: what a user says, and where the rows and keys of each request stand by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

import spattn
from spattn import oracle
from spattn.frontend.syntax import Node

PATTERNS = (
    "causal",
    "last(4)",
    "local(3) | columns([0, 2, -1])",
    "strided(3) & causal",
    "chunk(5) & causal",
    "random(2, block=4) | last(2)",
    "blocks(table, size=4)",
    "within(ids, causal)",
    "rows([1, -2]) | last(2)",
    "neighborhood([4, 5], 3)",
    "columns([tokens]) | last(2)",
)
PATTERNS_BY_REQUEST = (
    "causal",
    "last(4)",
    "local(3) | columns([0, 2])",
    "strided(3) & causal",
    "chunk(5) & valid(lengths)",
    "last(2) | global([0, 7])",
    "blocks(table, size=4) | last(2)",
    "columns([tokens, -1])",
    "last(3) | rows([-2, others])",
    "documents(ids) & causal",
    "documents(q_ids, k_ids) | last(2)",
)
"""Which generated kernels serve where requests have lengths of their own."""
BATCH, ROWS, KEYS = 2, 9, 14
"""Of a padded batch; packed requests are no longer."""
NAN = float("nan")


@dataclass(frozen=True)
class Drawn:
    """A call without its q, k, v.

    Attributes:
        arguments: What the user says.
        entries: Of each request q_len, num_keys, kv_len, q_offset, k_offset, as the oracle has them.
        rows, keys: Where those of each request lie: (entry, first).
        shape: (entries, rows, keys) of the tensors.
    """

    arguments: dict[str, Any]
    entries: list[dict[str, int]]
    rows: list[tuple[int, int]]
    keys: list[tuple[int, int]]
    shape: tuple[int, int, int]

    @property
    def packed(self) -> bool:
        """Do the requests lie in one dimension?"""
        return "cu_seqlens_q" in self.arguments

    @property
    def kv_len(self) -> int:
        """The longest whole."""
        return max((one["kv_len"] for one in self.entries), default=0)

    @property
    def q_len(self) -> int:
        """The most rows of a request."""
        return max((one["q_len"] for one in self.entries), default=0)

    def on(self, device: str) -> dict[str, Any]:
        """The arguments with their tensors on a device."""
        return {name: x.to(device) if isinstance(x, Tensor) else x for name, x in self.arguments.items()}

    def inputs(self, seed: int, heads: tuple[int, int], dim: int, **options: Any) -> list[Tensor]:
        """q, k and v, `[entries, heads, length, dim]`; what no request reads is NaN."""
        generator = torch.Generator().manual_seed(seed)
        entries, rows, keys = self.shape
        made = []
        for count, length, lie, name in ((heads[0], rows, self.rows, "q_len"), *((heads[1], keys, self.keys, ""),) * 2):
            x = torch.full((entries, count, length, dim), NAN)
            for (entry, first), one in zip(lie, self.entries, strict=True):
                begin, stop = (0, one["q_len"]) if name else read_keys(one)
                there = x[entry, :, first + begin : first + stop]
                there.copy_(torch.randn(there.shape, generator=generator))
            made.append(x.to(**options))
        return made

    def oracle(self, node: Node, given: list[Tensor], tensors: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(out, lse) in q's dtype, differentiable, as the tensors lie; NaN is no number of these, and counts 0."""
        q, k, v = (x.nan_to_num() for x in given)
        entries, rows, _ = self.shape
        out = torch.zeros(entries, q.shape[1], rows, v.shape[3], dtype=q.dtype, device=q.device)
        lse = torch.full(out.shape[:3], -torch.inf, dtype=q.dtype, device=q.device)
        places = zip(self.rows, self.keys, self.entries, strict=True)
        for b, ((row_entry, first_row), (key_entry, first_key), one) in enumerate(places):
            sizes: dict[str, Any] = {"num_heads": q.shape[1], "batch_size": len(self.entries), "tensors": tensors}
            mask = oracle.mask(node, **one, **sizes, only=b)
            mine = q[row_entry, None, :, first_row : first_row + one["q_len"]]
            theirs = [x[key_entry, None, :, first_key : first_key + one["num_keys"]] for x in (k, v)]
            found, ells = _attention(mine, *theirs, torch.as_tensor(mask, device=q.device))
            there = (slice(row_entry, row_entry + 1), slice(None), slice(first_row, first_row + one["q_len"]))
            out, lse = out.index_put(_index(there, out), found), lse.index_put(_index(there, lse), ells)
        return out, lse


def _attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Dense attention, whose gradients are no NaN where a row has no key."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    some = allowed.any(-1)
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~allowed, -torch.inf)
    scores = torch.where(some[..., None], scores, 0)
    out = torch.where(some[..., None], scores.softmax(-1) @ v, 0)
    return out, torch.where(some, scores.logsumexp(-1), -torch.inf)


def _index(there: tuple[slice, ...], like: Tensor) -> tuple[Tensor, ...]:
    ranges = [torch.arange(size, device=like.device)[part] for size, part in zip(like.shape, there, strict=False)]
    return torch.meshgrid(*ranges, indexing="ij")


def read_keys(one: dict[str, int]) -> tuple[int, int]:
    """Which of the given keys of a request are of its whole, half-open."""
    begin = min(max(-one["k_offset"], 0), one["num_keys"])
    return begin, max(min(one["kv_len"] - one["k_offset"], one["num_keys"]), begin)


@st.composite
def placements(
    draw: st.DrawFn,
    ways: tuple[str, ...] = ("numbers", "tensors", "padded", "packed"),
    most_rows: int = ROWS,
    most_keys: int = KEYS,
) -> Drawn:
    """Positions in numbers; in tensors too; with lengths of their own in a padded batch; of packed rows."""
    way = draw(st.sampled_from(ways))
    rows, keys = (draw(lengths(most)) if way in ("padded", "packed") else None for most in (most_rows, most_keys))
    arguments: dict[str, Any] = {"missing_keys": "ignore"}
    lie: list[Any] = [[(b, 0) for b in range(BATCH)]] * 2
    shape = BATCH, most_rows, most_keys
    if way == "packed":
        assert rows is not None
        assert keys is not None
        firsts = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        ends = [first + np.cumsum([0, *counts]) for first, counts in zip(firsts, (rows, keys), strict=True)]
        named = zip(("cu_seqlens_q", "cu_seqlens_k"), ends, strict=True)
        arguments |= {name: torch.as_tensor(cu, dtype=_dtype(draw)) for name, cu in named}
        arguments |= {"max_seqlen_q": most_rows, "max_seqlen_k": most_keys} if draw(st.booleans()) else {}
        lie = [[(0, int(first)) for first in cu[:-1]] for cu in ends]
        shape = 1, int(ends[0][-1]) + draw(st.integers(0, 2)), int(ends[1][-1]) + draw(st.integers(0, 2))
    elif way == "padded":
        both = ("q_lens", rows), ("kv_lens", keys)
        arguments |= {name: torch.as_tensor(x, dtype=_dtype(draw)) for name, x in both if draw(st.booleans())}
        rows, keys = (x if name in arguments else None for name, x in both)
    bounds = ("q_offset", -most_rows, 2 * most_keys), ("k_offset", -3, most_keys), ("kv_len", 0, 2 * most_keys)
    offsets = {name: draw(_offsets(least, most, way)) for name, least, most in bounds}
    arguments |= {name: said for name, (said, _) in offsets.items() if said is not None}
    entries = []
    for b in range(BATCH):
        q_len, num_keys = most_rows if rows is None else rows[b], most_keys if keys is None else keys[b]
        k_offset = _known(offsets["k_offset"][1], b, 0)
        kv_len = max(_known(offsets["kv_len"][1], b, k_offset + num_keys), 0)
        q_offset = _known(offsets["q_offset"][1], b, kv_len - q_len)
        entries.append(dict(zip(NAMES, (q_len, num_keys, kv_len, q_offset, k_offset), strict=True)))
    return Drawn(arguments, entries, *lie, shape)


NAMES = "q_len", "num_keys", "kv_len", "q_offset", "k_offset"


def lengths(most: int) -> st.SearchStrategy[list[int]]:
    """Of each request."""
    return st.lists(st.integers(0, most), min_size=BATCH, max_size=BATCH)


def _dtype(draw: st.DrawFn) -> torch.dtype:
    return draw(st.sampled_from([torch.int32, torch.int64]))


@st.composite
def _offsets(draw: st.DrawFn, least: int, most: int, way: str) -> tuple[Any, list[int] | None]:
    """What is said, and of each request what it means."""
    kind = draw(st.sampled_from(("nothing", "number") + ("one", "each") * (way != "numbers")))
    if kind == "nothing":
        return None, None
    values = draw(st.lists(st.integers(least, most), min_size=BATCH, max_size=BATCH))
    if kind == "each":
        return torch.as_tensor(values, dtype=_dtype(draw)), values
    said = values[0]
    return (said if kind == "number" else torch.tensor([said])), [said] * BATCH


def _known(values: list[int] | None, b: int, usual: int) -> int:
    return usual if values is None else values[b]


def answers(attn: spattn.Attention, drawn: Drawn, inputs: list[Tensor], tensors: dict[str, Any]) -> list[Tensor]:
    """out, lse and gradients, as the tensors lie."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    packed = [x.squeeze(0).transpose(0, 1) for x in leaves] if drawn.packed else leaves
    out, lse = attn(*packed, return_lse=True, **drawn.on(inputs[0].device.type), **tensors)
    assert out.is_contiguous()
    if drawn.packed:
        out, lse = out.transpose(0, 1).unsqueeze(0), lse.unsqueeze(0)
    return [out, lse, *torch.autograd.grad(weighed(out, lse), leaves)]


def weighed(out: Tensor, lse: Tensor) -> Tensor:
    """Some function of results: rows without keys count 0."""
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view(out.shape)
    return (out.double() * weights).sum() + torch.where(lse > -torch.inf, lse, 0).double().sin().sum()


def expected(node: Node, drawn: Drawn, inputs: list[Tensor], tensors: dict[str, Any]) -> list[Tensor]:
    leaves = [x.double().requires_grad_() for x in inputs]
    out, lse = drawn.oracle(node, leaves, tensors)
    return [out, lse, *torch.autograd.grad(weighed(out, lse), leaves)]


def dense(node: Node, drawn: Drawn, inputs: list[Tensor], tensors: dict[str, Any]) -> list[Tensor]:
    """The same by torch in the inputs' dtype."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    out, lse = drawn.oracle(node, leaves, tensors)
    return [out, lse, *torch.autograd.grad(weighed(out, lse), leaves)]
