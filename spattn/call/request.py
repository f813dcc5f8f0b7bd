"""What one call asks of a backend: tensors, scale, positions; and the plans that serve it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from spattn.call.positions import Numbers, Positions
from spattn.call.prepared import Prepared
from spattn.call.shape import Shape, dtype_name
from spattn.codegen.decode import DecodeSource
from spattn.codegen.module import ModuleSource
from spattn.layout.ir import Layout
from spattn.scores.nodes import Score
from spattn.scores.words import reads


@dataclass(frozen=True)
class Request:
    """One call, checked.

    q is `[batch, num_q_heads, q_len, head_dim]`, k `[batch, num_kv_heads, num_keys, head_dim]`, v as k but for its
    width; requests that are packed lie one after another in tensors of one batch entry.

    Attributes:
        scale: Factor of the scores.
        positions: Where rows and keys stand.
        tensors: The run-time tensors of pattern and score, and those of `positions.by_request`, on q's device.
        tf32: May float32 products use TF32?
        score: What becomes of the scores before the mask.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float
    positions: Positions
    tensors: Prepared
    tf32: bool = False
    score: Score | None = None

    @property
    def floats(self) -> tuple[str, ...]:
        """The tensors that the score reads, in its order."""
        return () if self.score is None else tuple(reads(self.score))

    @property
    def batch_size(self) -> int:
        """Batch entries; of packed tensors requests."""
        return self.tensors["cu_seqlens_q"].shape[0] - 1 if self.positions.is_packed else self.q.shape[0]

    @property
    def num_q_heads(self) -> int:
        """Query heads."""
        return self.q.shape[1]

    @property
    def num_kv_heads(self) -> int:
        """Heads of k and v."""
        return self.k.shape[1]

    @property
    def group_size(self) -> int:
        """Query heads that share one of k and v."""
        return self.num_q_heads // max(self.num_kv_heads, 1)

    @property
    def q_len(self) -> int:
        """Queries, in tokens, that a batch entry has at most."""
        return self.positions.q_len

    @property
    def q_offset(self) -> int:
        """Position of the first query."""
        return self.positions.q_offset

    @property
    def kv_len(self) -> int:
        """Keys of the whole, in tokens."""
        return self.positions.kv_len

    @property
    def shape(self) -> Shape:
        """The call without its tensors."""
        return Shape(
            batch_size=self.batch_size,
            num_q_heads=self.num_q_heads,
            num_kv_heads=self.num_kv_heads,
            q_len=self.q_len,
            kv_len=self.kv_len,
            q_offset=self.q_offset,
            k_offset=self.positions.k_offset,
            num_keys=self.positions.num_keys,
            head_dim=self.q.shape[3],
            v_head_dim=self.v.shape[3],
            dtype=dtype_name(self.q.dtype),
            tf32=self.tf32,
        )


def wants_gradient(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, floats: Iterable[torch.Tensor] = ()) -> bool:
    """Does autograd record this call? `floats` are what a score reads."""
    recorded = q.requires_grad or k.requires_grad or v.requires_grad or any(one.requires_grad for one in floats)
    return torch.is_grad_enabled() and recorded


class Again(Protocol):
    """Answers later calls like one that was answered: of its kind, whatever their lengths and values."""

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prepared: Prepared, said: Numbers, numbers: Any
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(out, lse); None where the call has to be looked at after all.

        Args:
            q: As in `Request`.
            k: As in `Request`.
            v: As in `Request`.
            prepared: The pattern's tensors.
            said: Where rows and keys stand, in numbers.
            numbers: Equal for calls of the same shapes, strides and positions in numbers.
        """
        ...


@dataclass(frozen=True)
class Served:
    """An answer.

    Attributes:
        out: `[batch, num_q_heads, q_len, v_head_dim]`, in q's dtype.
        lse: `[batch, num_q_heads, q_len]`.
        again: Answers later calls; not given where each has to be looked at.
    """

    out: torch.Tensor
    lse: torch.Tensor
    again: Again | None = None


Upstream = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
"""Gradients of the gradients of q, k and v; None for zero."""


class Differentiable(Protocol):
    """The gradients of calls that differ in nothing but the values of their tensors, and their derivatives."""

    def at(self, positions: Positions) -> Differentiable:
        """The same for calls of other lengths, whose rows and keys stand there."""
        ...

    def backward(
        self,
        saved: tuple[torch.Tensor, ...],
        prepared: Prepared,
        d_out: torch.Tensor | None,
        d_lse: torch.Tensor | None,
        wanted: tuple[bool, ...],
    ) -> tuple[torch.Tensor | None, ...]:
        """The gradients of q, k, v and of what a score reads, None for those that are not wanted.

        Args:
            saved: q, k, v, out, lse.
            prepared: The pattern's tensors, as the forward pass saw them.
            d_out: Gradient of out; None for zero.
            d_lse: Gradient of lse; None for zero.
            wanted: Which are asked for.
        """
        ...

    def second(
        self,
        saved: tuple[torch.Tensor, ...],
        prepared: Prepared,
        d_out: torch.Tensor | None,
        d_lse: torch.Tensor | None,
        upstream: Upstream,
    ) -> tuple[torch.Tensor, ...]:
        """The derivatives of `backward`: of d_out, d_lse, q, k, v, out and lse, as if these were independent.

        Args:
            saved: As in `backward`.
            prepared: As in `backward`.
            d_out: Gradient of out; None for zero.
            d_lse: Gradient of lse; None for zero.
            upstream: What the derivatives are weighed with.
        """
        ...

    def unwritten(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, wanted: tuple[bool, ...]
    ) -> tuple[torch.Tensor | None, ...]:
        """The gradients of q, k and v that `backward` answers, before anything is computed."""
        ...


class Records(Protocol):
    """JSON by key, a digest, that outlives the process; spattn's cache has it."""

    def read_json(self, key: str) -> dict[str, Any] | None:
        """What was written; None where nothing was, or it is damaged."""
        ...

    def write_json(self, key: str, data: dict[str, Any]) -> None:
        """Keeps `data`; the last writer wins."""
        ...


class CompiledPattern(Protocol):
    """A compiled pattern, as backends see it."""

    @property
    def records(self) -> Records | None:
        """Where a backend keeps what it measured of its choices; None where it is not to measure."""
        ...

    def groups(self, batch_size: int, num_heads: int) -> Mapping[tuple[bool, ...], NDArray[np.int64]]:
        """Groups of pairs `b * num_heads + h` with one layout each."""
        ...

    def layout_of(self, values: tuple[bool, ...], by_residue: bool = True) -> Layout:
        """The layout of a group; without `by_residue` the one that tiles no rows by residue classes."""
        ...

    def module_of(self, values: tuple[bool, ...], by_residue: bool = True, language: str = "triton") -> ModuleSource:
        """The generated module of a group, of the passes that the language serves."""
        ...

    def transposed_of(self, values: tuple[bool, ...], by_residue: bool = True) -> Layout:
        """The layout of a group with keys as rows, of direction "keys"."""
        ...

    def backward_module_of(
        self, values: tuple[bool, ...], by_residue: bool = True, language: str = "triton"
    ) -> ModuleSource:
        """The generated module of a group's gradients."""
        ...

    @property
    def reads_batch(self) -> bool:
        """Does it ask which batch entry a pair belongs to?"""
        ...

    def decode_source(self, values: tuple[bool, ...]) -> DecodeSource:
        """The generated module of a group's decode steps."""
        ...

    def publish(self, text: str) -> Path:
        """A file with just this text."""
        ...
