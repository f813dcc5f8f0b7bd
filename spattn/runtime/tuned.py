"""A pattern's tiles measured on this machine's GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from spattn.backends.gpu import Gpu
from spattn.cache.store import Cache
from spattn.call.positions import Positions
from spattn.call.request import CompiledPattern, Request
from spattn.codegen.languages import LANGUAGES
from spattn.errors import MissingDependencyError, UnsupportedError
from spattn.gpu.backward import Gradients, differentiate
from spattn.gpu.forward import attend
from spattn.gpu.launch import Options, Outputs
from spattn.gpu.tuning import Report, Tuner
from spattn.runtime.arguments import checked

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Shape:
    """A call's sizes; `dtype` is "bf16", "fp16" or "fp32".

    Attributes:
        positions: Where its rows and keys stand, in numbers.
    """

    batch_size: int
    num_q_heads: int
    num_kv_heads: int
    positions: Positions
    head_dim: int
    dtype: str


@dataclass(frozen=True)
class Tuned:
    """What was measured.

    Attributes:
        device: On which.
        reports: One for each group of heads, of attention, then of its gradients.
        seconds: Of compiling and measuring.
    """

    device: str
    reports: tuple[Report, ...]
    seconds: float


def tuned(
    plans: CompiledPattern,
    roles: Mapping[str, str],
    tensors: Mapping[str, Any],
    shape: Shape,
    cache: Cache,
    *,
    backward: bool = True,
    tf32: bool = False,
) -> Tuned:
    """Measures candidates of each pass, on random tensors, and keeps the best in the cache.

    Args:
        plans: The compiled pattern.
        roles: Its free names.
        tensors: Arrays for these.
        shape: Of the call.
        cache: Where calls of a pattern compiled with `tune=True` look.
        backward: Measure the gradients' passes too.
        tf32: May float32 products use TF32?

    Raises:
        MissingDependencyError: E050, there is no GPU.
        UnsupportedError: E061, Triton does not serve such a call.
    """
    if not torch.cuda.is_available():
        raise MissingDependencyError("E050", "tiles are measured on a GPU, and torch sees none here")
    request = _request(roles, tensors, shape, tf32)
    languages = tuple(LANGUAGES)
    why = Gpu(languages).refusal(plans, request)
    if why is not None:
        raise UnsupportedError("E061", f"backend 'triton': {why}")
    reports: list[Report] = []
    begin = time.perf_counter()
    options = Options(languages, tuner=Tuner(cache, heard=reports.append, fresh=True))
    outputs = Outputs.of(request)
    with torch.no_grad():
        attend(plans, request, outputs, options)
        if backward:
            into = Gradients.of(request.q, request.k, request.v)
            differentiate(plans, request, outputs, torch.randn_like(outputs.out), None, into, options)
    return Tuned(torch.cuda.get_device_name(), tuple(reports), time.perf_counter() - begin)


def _request(roles: Mapping[str, str], tensors: Mapping[str, Any], shape: Shape, tf32: bool) -> Request:
    generator = torch.Generator("cuda").manual_seed(0)
    at, of_keys = shape.positions, (shape.num_kv_heads, shape.positions.num_keys)
    sizes = (shape.num_q_heads, at.q_len), of_keys, of_keys
    dtype = DTYPES[shape.dtype]
    q, k, v = (
        torch.randn(shape.batch_size, *size, shape.head_dim, generator=generator, dtype=dtype, device="cuda")
        for size in sizes
    )
    given = {name: torch.as_tensor(value, device="cuda") for name, value in tensors.items()}
    return checked(q, k, v, scale=None, tf32=tf32, roles=roles, tensors=given, said=at.said)
