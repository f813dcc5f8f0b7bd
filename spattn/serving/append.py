"""Appending: new keys and values are written behind those that requests hold.

One kernel of Triton does it on a GPU, and in the interpreter; torch does it on a CPU, and says what has no slot.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from spattn.errors import ArgumentError, MissingDependencyError
from spattn.runtime.tensors import require_tensor
from spattn.serving.ring import Ring
from spattn.serving.storage import FLOAT8, Storage, check_integers

MANTISSA = {torch.float8_e4m3fn: 3, torch.float8_e5m2: 2}
MAX_BLOCK = 1024  # numbers of a head that a program writes at a time


def append(cache: Storage, k_new: Tensor, v_new: Tensor, cu_seqlens_q: Tensor | None) -> None:
    """As `Storage.append`."""
    tokens_k, tokens_v = _packed(cache, k_new, v_new, cu_seqlens_q)
    with torch.no_grad():
        write = append_by_kernel if cache.device.type == "cuda" else append_by_torch
        write(cache, tokens_k, tokens_v, cu_seqlens_q)
        if cu_seqlens_q is None:
            cache.kv_lens.add_(tokens_k.shape[1])
        else:
            cache.kv_lens.add_(cu_seqlens_q[1:] - cu_seqlens_q[:-1])


def append_by_torch(cache: Storage, k_new: Tensor, v_new: Tensor, cu_seqlens_q: Tensor | None) -> None:
    """Writes without a kernel; `k_new` and `v_new` as `append_by_kernel` has them.

    Raises:
        ArgumentError: E060, a token has no slot; nothing is written.
    """
    requests, order, lengths = _whose(cache, k_new, cu_seqlens_q)
    positions = cache.kv_lens[requests].long() + order
    new = cache.kv_lens.long() + lengths
    kept = cache.kept_of(new[requests], positions)
    if kept is not None:
        requests, order, positions = requests[kept], order[kept], positions[kept]
    room = cache.has_room(requests, positions)
    if not bool(room.all()):
        first = int((~room).nonzero()[0])
        message = f"request {int(requests[first])} has no slot for position {int(positions[first])}"
        raise ArgumentError("E060", message, hint="nothing was written; give it more pages or a larger cache")
    at = cache.places(requests, positions)
    for stored, given, scale in ((cache.keys, k_new, cache.k_scale), (cache.values, v_new, cache.v_scale)):
        tokens = given[requests, order] if cu_seqlens_q is None else given[0, cu_seqlens_q[requests] + order]
        stored[at] = as_stored(tokens, stored.dtype, scale)


def as_stored(tokens: Tensor, dtype: torch.dtype, scale: Tensor | None) -> Tensor:
    """Keys or values `[tokens, num_kv_heads, dim]` as a cache stores them: divided by its scale, float8 saturated."""
    if scale is not None:
        tokens = tokens.float() / scale[:, None]
    if dtype in FLOAT8:
        most = torch.finfo(dtype).max
        tokens = tokens.float().clamp(-most, most)
    return tokens.to(dtype)


def append_by_kernel(cache: Storage, k_new: Tensor, v_new: Tensor, cu_seqlens_q: Tensor | None) -> None:
    """Writes by a kernel of Triton, without a look at any number.

    Args:
        cache: Where to; its `kv_lens` stay as they are.
        k_new: `[batch, new, num_kv_heads, head_dim]`, or with `cu_seqlens_q` `[1, tokens, num_kv_heads, head_dim]`.
        v_new: The same of values.
        cu_seqlens_q: Where the tokens of each request end.

    Raises:
        MissingDependencyError: Triton is not installed.
    """
    kernel = _kernel()
    batch, new, heads, head_dim = k_new.shape
    if not batch * new * cache.batch_size:
        return
    ring = cache if isinstance(cache, Ring) else None
    table, starts, mantissa = cache.table, cache.table_starts, MANTISSA.get(cache.dtype, 0)
    keys, values = (x.view(torch.uint8) if mantissa else x for x in (cache.keys, cache.values))
    kept = None if ring is None else ring.kept
    on_device = torch.cuda.device(cache.device) if cache.device.type == "cuda" else nullcontext()
    with on_device:
        kernel[(batch * new, heads)](
            k_new,
            v_new,
            keys,
            values,
            cache.k_scale,
            cache.v_scale,
            cache.kv_lens,
            cu_seqlens_q,
            table,
            starts,
            kept,
            new,
            cache.batch_size,
            cache.capacity,
            keys.shape[0],
            0 if table is None or starts is not None else table.stride(0),
            *k_new.stride()[:3],
            *v_new.stride()[:3],
            *keys.stride()[:3],
            *values.stride()[:3],
            0 if ring is None else ring.window,
            0 if ring is None else ring.window_base,
            SEARCH=0 if cu_seqlens_q is None else cache.batch_size.bit_length(),
            PAGE_SIZE=cache.page_size,
            PIECES=0 if kept is None else kept.shape[0],
            RING=ring is not None,
            K_SCALES=0 if cache.k_scale is None else cache.k_scale.shape[0],
            V_SCALES=0 if cache.v_scale is None else cache.v_scale.shape[0],
            MANTISSA=mantissa,
            MOST=torch.finfo(cache.dtype).max,
            HEAD_DIM=head_dim,
            V_HEAD_DIM=v_new.shape[3],
            BLOCK=_block(max(head_dim, v_new.shape[3])),
            num_warps=1,
            enable_fp_fusion=True,
        )


def _kernel() -> Any:
    try:
        from spattn.kernels.serving import append_kernel
    except ImportError as error:
        message = f"a cache on a GPU is written by a kernel of Triton: {error}"
        raise MissingDependencyError("E050", message, hint="pip install 'spattn[triton]'") from error
    return append_kernel


def _block(width: int) -> int:
    return min(MAX_BLOCK, 1 << max(width - 1, 0).bit_length())


def _packed(cache: Storage, k_new: Tensor, v_new: Tensor, cu_seqlens_q: Tensor | None) -> tuple[Tensor, Tensor]:
    """Checked, as `[batch, new, heads, dim]`, packed tokens as a batch of one."""
    found = []
    for name, given, stored in (("k_new", k_new, cache.keys), ("v_new", v_new, cache.values)):
        require_tensor(name, given)
        heads, width = stored.shape[2:]
        if cu_seqlens_q is None:
            wanted: tuple[int, ...] = (cache.batch_size, heads, width)
            shape, text = (*given.shape[:2], *given.shape[3:]), f"[{cache.batch_size}, {heads}, new, {width}]"
        else:
            wanted, shape, text = (heads, width), tuple(given.shape[1:]), f"[tokens, {heads}, {width}]"
        if given.dim() != (4 if cu_seqlens_q is None else 3) or tuple(shape) != wanted:
            raise ArgumentError("E060", f"{name} has shape {list(given.shape)}, not {text}")
        if given.device != cache.device:
            raise ArgumentError("E060", f"{name} is on {given.device} and the cache on {cache.device}")
        if given.dtype != cache.dtype and (cache.dtype not in FLOAT8 or not given.is_floating_point()):
            raise ArgumentError("E060", f"{name} is {given.dtype} and the cache {cache.dtype}")
        if given.shape[-1] > 1 and given.stride(-1) != 1:
            given = given.contiguous()
        found.append(given.transpose(1, 2) if cu_seqlens_q is None else given.unsqueeze(0))
    if found[0].shape[1] != found[1].shape[1]:
        raise ArgumentError("E060", f"there are {found[0].shape[1]} new keys and {found[1].shape[1]} values")
    if cu_seqlens_q is not None:
        check_integers("cu_seqlens_q", cu_seqlens_q, cache.device, 1)
        if cu_seqlens_q.shape[0] != cache.batch_size + 1:
            found_ends = f"cu_seqlens_q has shape {list(cu_seqlens_q.shape)}"
            raise ArgumentError("E060", f"{found_ends}; it is the ends of all requests, [{cache.batch_size + 1}]")
    return found[0], found[1]


def _whose(cache: Storage, k_new: Tensor, cu_seqlens_q: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The request of each new token, its place among that request's new ones, and how many each request has."""
    batch = torch.arange(cache.batch_size, device=cache.device)
    if cu_seqlens_q is None:
        new = k_new.shape[1]
        order = torch.arange(new, device=cache.device).repeat(cache.batch_size)
        return batch.repeat_interleave(new), order, torch.full_like(batch, new)
    lengths = (cu_seqlens_q[1:] - cu_seqlens_q[:-1]).long()
    requests = batch.repeat_interleave(lengths)
    first = (lengths.cumsum(0) - lengths)[requests]
    return requests, torch.arange(len(requests), device=cache.device) - first, lengths
