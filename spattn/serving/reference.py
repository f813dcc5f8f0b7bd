"""Decode steps by the torch backend: keys are gathered from where they lie, and attention is called over them.

It reads lengths on the host, and serves any pattern, storage and device: the judge of quicker ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spattn.attend import Attention, compile
from spattn.call.merge import merge
from spattn.errors import ArgumentError
from spattn.runtime.sinks import lse_with_sinks, out_with_sinks
from spattn.serving.step import Step
from spattn.serving.storage import Storage


class Reference:
    """Decode steps of a pattern, by torch.

    Args:
        attention: What is computed, by whatever backend.
        max_kv_len: No request holds more tokens.
        max_new: None has more new ones in a step.
    """

    def __init__(self, attention: Attention, max_kv_len: int, max_new: int) -> None:
        self._attention = compile(attention.pattern, backend="torch", score=attention.score, tf32=attention.tf32)
        self._max_kv_len, self._max_new = max_kv_len, max_new

    @torch.no_grad()
    def __call__(self, step: Step) -> None:
        """Writes out, and lse where it is wanted; errors are those of `Decoder`."""
        held = step.cache.kv_lens.tolist()
        ends = None if step.cu_seqlens_q is None else step.cu_seqlens_q.tolist()
        new = [step.q.shape[2]] * len(held) if ends is None else [b - a for a, b in zip(ends, ends[1:], strict=False)]
        self._check(step, held, new, ends)
        rows = [m if n else 0 for m, n in zip(new, held, strict=True)]
        if not any(rows):
            return
        out, lse = self._attend(step, held, rows, ends)
        for b, count in enumerate(rows):
            if ends is None and count:
                step.out[b].copy_(out[b])
                if step.lse is not None:
                    step.lse[b].copy_(lse[b])
            elif ends is not None and count:
                own = slice(ends[b], ends[b] + count)
                step.out[own].copy_(out[b, :, :count].transpose(0, 1))
                if step.lse is not None:
                    step.lse[:, own].copy_(lse[b, :, :count])

    def _attend(self, step: Step, held: list[int], rows: list[int], ends: list[int] | None) -> tuple[Tensor, Tensor]:
        """out `[batch, num_q_heads, most rows, v_head_dim]` and lse, with sinks."""
        q = step.q if ends is None else _padded_rows(step.q, ends, rows)
        spans = [step.cache.spans(b) if count else [] for b, count in enumerate(rows)]
        q_lens, kv_len = _numbers(rows, q), _numbers(held, q)
        parts = [
            self._part(step, q, [one[i] if i < len(one) else (0, 0) for one in spans], q_lens, kv_len)
            for i in range(max(map(len, spans)))
        ]
        out, lse = parts[0] if len(parts) == 1 else merge(parts)
        if step.sinks is None:
            return out, lse
        return out_with_sinks(out, lse, step.sinks), lse_with_sinks(lse, step.sinks, q_lens)

    def _part(
        self, step: Step, q: Tensor, spans: list[tuple[int, int]], q_lens: Tensor, kv_len: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention over a range of each request's keys."""
        k, v = _gathered(step.cache, spans, q.dtype)
        answer: Any = self._attention(
            q,
            k,
            v,
            return_lse=True,
            scale=step.scale,
            q_offset=kv_len - q_lens,
            k_offset=_numbers([first for first, _ in spans], q),
            kv_len=kv_len,
            q_lens=q_lens,
            kv_lens=_numbers([stop - first for first, stop in spans], q),
            missing_keys="ignore",
            **step.tensors,
        )
        return answer[0], answer[1]

    def _check(self, step: Step, held: list[int], new: list[int], ends: list[int] | None) -> None:
        most = min(self._max_kv_len, step.cache.capacity)
        if not all(0 <= n <= most for n in held):
            raise ArgumentError("E060", f"kv_lens holds {held}; a request holds {most} tokens at most")
        if not all(0 <= m <= self._max_new for m in new):
            raise ArgumentError("E060", f"requests have {new} new tokens; {self._max_new} is max_new")
        if ends is not None and not 0 <= ends[0] <= ends[-1] <= step.q.shape[0]:
            raise ArgumentError(
                "E060", f"cu_seqlens_q holds {ends}; these ascend from 0 to {step.q.shape[0]} rows at most"
            )


def _numbers(values: list[int], q: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=q.device)


def _padded_rows(q: Tensor, ends: list[int], rows: list[int]) -> Tensor:
    """Packed rows as `[batch, num_q_heads, most rows, head_dim]`."""
    padded = q.new_zeros(len(rows), q.shape[1], max(rows), q.shape[2])
    for b, count in enumerate(rows):
        padded[b, :, :count] = q[ends[b] : ends[b] + count].transpose(0, 1)
    return padded


def _gathered(cache: Storage, spans: list[tuple[int, int]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """k and v `[batch, num_kv_heads, most keys, dim]` of a range of positions of each request, in q's dtype."""
    found = [cache.read(b, *span) for b, span in enumerate(spans)]
    pair = []
    for each, scale in (([k for k, _ in found], cache.k_scale), ([v for _, v in found], cache.v_scale)):
        values = [_value(one, scale, dtype).transpose(0, 1) for one in each]
        if len(values) == 1:
            pair.append(values[0].unsqueeze(0))
            continue
        heads, _, width = values[0].shape
        padded = values[0].new_zeros(len(values), heads, max(one.shape[1] for one in values), width)
        for b, one in enumerate(values):
            padded[b, :, : one.shape[1]] = one
        pair.append(padded)
    return pair[0], pair[1]


def _value(stored: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What is stored `[keys, num_kv_heads, dim]`, times its scale."""
    return stored.to(dtype) if scale is None else (stored.float() * scale[:, None]).to(dtype)
