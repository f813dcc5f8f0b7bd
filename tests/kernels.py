"""The Triton backend on one pattern, beside the oracle: what the interpreted tests and those on a GPU share.

Outputs are allocated inside a fence of a finite sentinel (a fence of NaN would hide writes of NaN), inputs inside a
fence of NaN: a kernel that reads or writes past its tensors, or leaves a row unwritten, is caught by any test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spattn import oracle
from spattn.backends.gpu import Gpu
from spattn.cache.store import default_cache
from spattn.call.positions import Numbers
from spattn.call.request import Records, Request
from spattn.codegen.module import ModuleSource
from spattn.codegen.tile import Tile
from spattn.compiler import Compiled, compile_pattern
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Node
from spattn.gpu.backward import Gradients, differentiate
from spattn.gpu.forward import attend
from spattn.gpu.launch import Options, Outputs
from spattn.layout.ir import Layout
from spattn.relation.heads import pair_groups
from spattn.runtime.arguments import checked

SENTINEL = 777.0
FENCE = 256  # elements, a multiple of any alignment that Triton asks about
SMALL = Tile(16, 16, 4, 1)
PEELED = replace(SMALL, peeled=True)
TRITON = ("triton",)
SPLIT = replace(PEELED, splits=3)
TILES = (SMALL, PEELED, SPLIT)


@dataclass(frozen=True)
class CompiledPattern:
    """A compiled pattern as the backends ask for it."""

    compiled: Compiled
    records: Records | None = None

    def groups(self, batch_size: int, num_heads: int) -> Mapping[tuple[bool, ...], NDArray[np.int64]]:
        return pair_groups(self.compiled.pair_conditions, batch_size, num_heads)

    def layout_of(self, values: tuple[bool, ...], by_residue: bool = True) -> Layout:
        return self.compiled.layout(values, by_residue=by_residue)

    def module_of(self, values: tuple[bool, ...], by_residue: bool = True, language: str = "triton") -> ModuleSource:
        return self.compiled.source(values, by_residue, language)

    def transposed_of(self, values: tuple[bool, ...], by_residue: bool = True) -> Layout:
        return self.compiled.layout(values, "keys", by_residue)

    def backward_module_of(
        self, values: tuple[bool, ...], by_residue: bool = True, language: str = "triton"
    ) -> ModuleSource:
        return self.compiled.backward_source(values, by_residue, language)

    def publish(self, text: str) -> Path:
        return default_cache().publish(text)


@lru_cache(maxsize=64)
def plans(pattern: str | Node) -> CompiledPattern:
    return CompiledPattern(compile_pattern(pattern))


@dataclass(frozen=True)
class Inputs:
    """q, k, v and what else a call has; shapes as in `spattn.attention`."""

    q: Tensor
    k: Tensor
    v: Tensor
    tensors: Mapping[str, Any] = field(default_factory=dict)
    scale: float | None = None
    q_offset: int | None = None
    k_offset: int | None = None
    kv_len: int | None = None

    @property
    def placed(self) -> dict[str, Any]:
        """Where rows and keys stand, as the oracle has it."""
        first, count = self.k_offset or 0, self.k.shape[2]
        kv_len = first + count if self.kv_len is None else self.kv_len
        return {"kv_len": kv_len, "q_offset": self.q_offset, "k_offset": first, "num_keys": count}

    @property
    def sizes(self) -> dict[str, int]:
        return {"batch_size": self.q.shape[0], "num_heads": self.q.shape[1]}


def drawn(
    q_len: int,
    kv_len: int,
    *,
    batch: int = 1,
    heads: tuple[int, int] = (2, 2),
    dims: tuple[int, int] = (16, 16),
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
    **options: Any,
) -> Inputs:
    """Normal inputs: `heads` of q and of k, `dims` of q and of v."""
    generator = torch.Generator(device).manual_seed(1000 * q_len + kv_len + seed)
    shapes = ((heads[0], q_len, dims[0]), (heads[1], kv_len, dims[0]), (heads[1], kv_len, dims[1]))
    made = (torch.randn(batch, *shape, generator=generator, dtype=torch.float32, device=device) for shape in shapes)
    q, k, v = (fenced(x.to(dtype), float("nan")) for x in made)
    return Inputs(q, k, v, **options)


def fenced(inner: Tensor, fence: float) -> Tensor:
    """The same values, dense, in the middle of a buffer of `fence`."""
    buffer = torch.full((inner.numel() + 2 * FENCE,), fence, dtype=inner.dtype, device=inner.device)
    view = buffer[FENCE : FENCE + inner.numel()].view(inner.shape)
    return view.copy_(inner)


def requested(pattern: str | Node, given: Inputs) -> tuple[CompiledPattern, Request]:
    """What the backend is asked, checked as a user's call is."""
    plan = plans(pattern)
    request = checked(
        given.q,
        given.k,
        given.v,
        scale=given.scale,
        said=Numbers(given.q_offset, given.k_offset, given.kv_len),
        tf32=False,
        roles=dict(plan.compiled.roles),
        tensors={name: torch.as_tensor(value, device=given.q.device) for name, value in given.tensors.items()},
    )
    assert Gpu(TRITON).refusal(plan, request) is None
    return plan, request


def run(pattern: str | Node, given: Inputs, tile: Tile | None = SMALL) -> tuple[Tensor, Tensor]:
    """(out, lse) of the Triton backend; each element of them is written, and nothing beside them."""
    plan, request = requested(pattern, given)
    empty = Outputs.of(request)
    out, lse = (fenced(torch.full_like(x, SENTINEL), SENTINEL) for x in (empty.out, empty.lse))
    attend(plan, request, Outputs(out, lse), Options(TRITON, tile))
    for x in (out, lse):
        assert_filled(x)
    return out, lse


def mask_of(pattern: str | Node, given: Inputs) -> Tensor:
    """The oracle's pairs, [batch, heads, q_len, kv_len]."""
    node = parse(pattern) if isinstance(pattern, str) else pattern
    arrays = {name: np.asarray(torch.as_tensor(value).cpu()) for name, value in given.tensors.items()}
    lengths = given.q.shape[2], given.k.shape[2]
    found = oracle.mask(node, lengths[0], tensors=arrays, **given.placed, **given.sizes)
    return torch.as_tensor(found).expand(*given.q.shape[:2], *lengths)


def expected(pattern: str | Node, given: Inputs, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(out, lse) of the oracle, in float64."""
    return oracle.attention(given.q, given.k, given.v, mask_of(pattern, given) if mask is None else mask, given.scale)


TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def check(pattern: str | Node, given: Inputs, tile: Tile | None = SMALL) -> None:
    """The backend against the oracle."""
    out, lse = run(pattern, given, tile)
    wanted, wanted_lse = expected(pattern, given)
    assert out.dtype == given.q.dtype
    assert lse.dtype == torch.float32
    tolerance = TOLERANCE[out.dtype]
    torch.testing.assert_close(out.double(), wanted, atol=tolerance, rtol=tolerance, equal_nan=True)
    torch.testing.assert_close(lse.double(), wanted_lse, atol=5e-6, rtol=5e-6, equal_nan=True)


@dataclass(frozen=True)
class Upstream:
    """Gradients of out and lse."""

    d_out: Tensor
    d_lse: Tensor | None = None


def drawn_upstream(given: Inputs, *, with_lse: bool = True, seed: int = 1) -> Upstream:
    """Normal gradients of the results."""
    generator = torch.Generator(given.q.device).manual_seed(seed)
    shape = given.q.shape[:3]

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=torch.float32, device=given.q.device)

    d_out = fenced(normal(*shape, given.v.shape[3]).to(given.q.dtype), float("nan"))
    return Upstream(d_out, fenced(normal(*shape), float("nan")) if with_lse else None)


def gradients(
    pattern: str | Node, given: Inputs, upstream: Upstream, tile: Tile | None = SMALL
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) of the Triton backend; each element of them is written, and nothing beside them."""
    plan, request = requested(pattern, given)
    saved = Outputs.of(request)
    attend(plan, request, saved, Options(TRITON, tile))
    found = [fenced(torch.full_like(x, SENTINEL), SENTINEL) for x in (request.q, request.k, request.v)]
    differentiate(plan, request, saved, upstream.d_out, upstream.d_lse, Gradients(*found), Options(TRITON, tile))
    for x in found:
        assert_filled(x)
    return found[0], found[1], found[2]


def assert_filled(x: Tensor) -> None:
    """Each element was written, and nothing in the fence around them."""
    assert not (x == SENTINEL).any(), "an element was not written"
    whole = torch.empty(0, dtype=x.dtype, device=x.device).set_(x.untyped_storage())
    assert (whole[:FENCE] == SENTINEL).all(), "written before the first element"
    assert (whole[FENCE + x.numel() :] == SENTINEL).all(), "written after the last element"


def expected_gradients(
    pattern: str | Node, given: Inputs, upstream: Upstream, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) in float64 by the formulas; values of pairs that are not allowed never matter."""
    mask = mask_of(pattern, given) if mask is None else mask
    group = given.q.shape[1] // given.k.shape[1]
    q, d_out = given.q.double(), upstream.d_out.double()
    k, v = (x.double().repeat_interleave(group, 1) for x in (given.k, given.v))
    scale = given.q.shape[3] ** -0.5 if given.scale is None else given.scale
    out, lse = oracle.attention(given.q, given.k, given.v, mask, given.scale)
    p = torch.where(mask, (q @ k.mT * scale - lse[..., None]).exp(), 0.0)
    delta = (d_out * out).sum(-1) - (0.0 if upstream.d_lse is None else upstream.d_lse.double())
    ds = torch.where(mask, p * (d_out @ v.mT - delta[..., None]), 0.0)

    def seen(weights: Tensor, values: Tensor, allowed: Tensor) -> Tensor:
        """The product, in which only allowed pairs meet what is inf or NaN."""
        met = allowed.double() @ (~values.isfinite()).double() > 0
        return (weights @ torch.where(values.isfinite(), values, 0.0)).masked_fill(met, torch.nan)

    dq = seen(ds, k, mask) * scale
    dk, dv = seen(ds.mT, q, mask.mT) * scale, seen(p.mT, d_out, mask.mT)
    dk, dv = (x.unflatten(1, (given.k.shape[1], group)).sum(2) for x in (dk, dv))
    return dq, dk, dv


GRADIENT_TOLERANCE = {torch.float32: 2e-5, torch.float16: 1e-2}


def check_gradients(pattern: str | Node, given: Inputs, tile: Tile | None = SMALL, *, with_lse: bool = True) -> None:
    """The gradients of the backend against the formulas, relative to the largest of each tensor or to 1."""
    upstream = drawn_upstream(given, with_lse=with_lse)
    wanted = expected_gradients(pattern, given, upstream)
    found = gradients(pattern, given, upstream, tile)
    for name, mine, theirs in zip(("dq", "dk", "dv"), found, wanted, strict=True):
        assert mine.dtype == given.q.dtype
        assert mine.shape == theirs.shape
        largest = theirs.nan_to_num(0, 0, 0).abs().max().item() if theirs.numel() else 0.0
        tolerance = GRADIENT_TOLERANCE[mine.dtype] * max(1.0, largest)
        torch.testing.assert_close(
            mine.double(), theirs, atol=tolerance, rtol=0, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}"
        )
