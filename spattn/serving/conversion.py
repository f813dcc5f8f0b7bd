"""Caches from the tensors that other libraries' calls take, by their names."""

from __future__ import annotations

import torch
from torch import Tensor

from spattn.errors import ArgumentError, UnsupportedError
from spattn.serving.dense import Dense
from spattn.serving.paged import Layout, Paged
from spattn.serving.storage import Scale


def from_flash_attention(
    k_cache: Tensor,
    v_cache: Tensor,
    cache_seqlens: Tensor | int,
    *,
    page_table: Tensor | None = None,
    block_table: Tensor | None = None,
    cache_batch_idx: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    k_descale: Scale | None = None,
    v_descale: Scale | None = None,
) -> Dense | Paged:
    """The cache of a call of `flash_attn_with_kvcache`.

    Args:
        k_cache: `[batch, capacity, num_kv_heads, head_dim]`; with a table `[pages, page_size, num_kv_heads, head_dim]`.
        v_cache: The same of values.
        cache_seqlens: int32 `[batch]`, tokens that each request holds, changed in place; or one number of all, of which
            a tensor is made.
        page_table: int32 `[batch, max_pages]`.
        block_table: The same by its older name.
        cache_batch_idx: int32 `[batch]`, which row of the cache each request has.
        cache_leftpad: Refused.
        k_descale: A key is its stored number times this: a number, or float32 `[1]` or `[num_kv_heads]`.
        v_descale: The same of values.

    Raises:
        ArgumentError: E060, tensors do not fit each other.
        UnsupportedError: E061, tokens do not begin at the first slot.
    """
    if cache_leftpad is not None:
        message = "cache_leftpad is given, and a request's tokens begin at its first slot"
        raise UnsupportedError("E061", message, hint="give views of the cache, or pages, that begin there")
    tables = [one for one in (page_table, block_table, cache_batch_idx) if one is not None]
    if len(tables) > 1:
        raise ArgumentError("E060", "one of page_table, block_table and cache_batch_idx says where requests lie")
    if isinstance(cache_seqlens, int):
        batch = tables[0].shape[0] if tables else k_cache.shape[0]
        cache_seqlens = torch.full((batch,), cache_seqlens, dtype=torch.int32, device=k_cache.device)
    if not tables:
        k, v = k_cache.transpose(1, 2), v_cache.transpose(1, 2)
        return Dense(k, v, cache_seqlens, k_scale=k_descale, v_scale=v_descale)
    # a row of the cache is a page that holds all of a request
    table = tables[0].unsqueeze(1) if cache_batch_idx is not None else tables[0]
    return Paged(k_cache, v_cache, table, cache_seqlens, k_scale=k_descale, v_scale=v_descale)


def from_flashinfer(
    paged_kv_cache: Tensor | tuple[Tensor, Tensor],
    indptr: Tensor,
    indices: Tensor,
    last_page_len: Tensor | None = None,
    *,
    kv_lens: Tensor | None = None,
    kv_layout: Layout = "NHD",
    k_scale: Scale | None = None,
    v_scale: Scale | None = None,
) -> Paged:
    """The cache of a paged wrapper of FlashInfer.

    Args:
        paged_kv_cache: `[pages, 2, page_size, num_kv_heads, head_dim]`, in layout "HND" `[pages, 2, num_kv_heads,
            page_size, head_dim]`; or a pair of keys and values without the 2.
        indptr: int32 `[batch + 1]`: the pages of request b are indices[indptr[b] .. indptr[b+1]-1].
        indices: int32, pages of all requests.
        last_page_len: int32 `[batch]`, how many slots of the last page are filled; lengths are computed from it now.
        kv_lens: In its place, int32 `[batch]`, tokens that each request holds, changed in place.
        kv_layout: "NHD" or "HND".
        k_scale: A key is its stored number times this: a number, or float32 `[1]` or `[num_kv_heads]`.
        v_scale: The same of values.

    Raises:
        ArgumentError: E060, tensors do not fit each other.
    """
    if isinstance(paged_kv_cache, Tensor):
        if paged_kv_cache.dim() != 5 or paged_kv_cache.shape[1] != 2:
            shape = f"paged_kv_cache has shape {list(paged_kv_cache.shape)}"
            raise ArgumentError("E060", f"{shape}, not [pages, 2, ..] of five dimensions; or it is a pair")
        k, v = paged_kv_cache[:, 0], paged_kv_cache[:, 1]
    else:
        k, v = paged_kv_cache
    return Paged.from_csr(
        k, v, indptr, indices, kv_lens, last_page_len=last_page_len, layout=kv_layout, k_scale=k_scale, v_scale=v_scale
    )
