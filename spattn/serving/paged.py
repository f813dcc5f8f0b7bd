"""Paged caches: a table says which page has which positions of a request."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from spattn.errors import ArgumentError
from spattn.serving.storage import MOST, Scale, Storage, check_dense, check_integers

Layout = Literal["NHD", "HND"]
SHAPES = {
    "NHD": "[pages, page_size, num_kv_heads, head_dim]",
    "HND": "[pages, num_kv_heads, page_size, head_dim]",
}


class Paged(Storage):
    """Pages that requests share; position p lies in slot p % page_size of the page that the table names.

    An entry of the table that is no page stands for one that has been dropped: no row may need its keys.

    Args:
        k: Pages of keys, `[pages, page_size, num_kv_heads, head_dim]` or as `layout` says, last dimension dense; a half
            `kv[:, 0]` of a combined tensor is one.
        v: Pages of values.
        page_table: int32 `[batch, max_pages]`, the pages of each request in the order of positions.
        kv_lens: int32 `[batch]`: tokens that each request holds, changed in place.
        layout: "NHD", or "HND" for `[pages, num_kv_heads, page_size, head_dim]`.
        k_scale: A key is its stored number times this: a number, or float32 `[1]` or `[num_kv_heads]`.
        v_scale: The same of values.

    Raises:
        ArgumentError: E060, tensors do not fit each other.
    """

    table: Tensor

    def __init__(
        self,
        k: Tensor,
        v: Tensor,
        page_table: Tensor,
        kv_lens: Tensor,
        layout: Layout = "NHD",
        *,
        k_scale: Scale | None = None,
        v_scale: Scale | None = None,
    ) -> None:
        self._hold(k, v, kv_lens, layout, k_scale, v_scale)
        check_integers("page_table", page_table, k.device, 2)
        if page_table.shape[0] != kv_lens.shape[0]:
            raise ArgumentError(
                "E060", f"page_table has {page_table.shape[0]} rows, and kv_lens {kv_lens.shape[0]} requests"
            )
        self.table = page_table

    @classmethod
    def from_csr(
        cls,
        k: Tensor,
        v: Tensor,
        indptr: Tensor,
        indices: Tensor,
        kv_lens: Tensor | None = None,
        *,
        last_page_len: Tensor | None = None,
        layout: Layout = "NHD",
        k_scale: Scale | None = None,
        v_scale: Scale | None = None,
    ) -> Paged:
        """Pages whose table is flat, as FlashInfer has it.

        Args:
            k: Pages of keys, as above.
            v: Pages of values.
            indptr: int32 `[batch + 1]`: the pages of request b are indices[indptr[b] .. indptr[b+1]-1].
            indices: int32, pages of all requests.
            kv_lens: int32 `[batch]`: tokens that each request holds, changed in place.
            last_page_len: In its place, int32 `[batch]`: how many slots of a request's last page are filled. Lengths
                are computed from it now; they do not follow it.
            layout: As above.
            k_scale: As above.
            v_scale: As above.

        Raises:
            ArgumentError: E060, tensors do not fit each other.
        """
        cache = cls.__new__(cls)
        for name, x in (("k", k), ("v", v)):
            check_dense(name, x, _shape(layout))
        check_integers("indptr", indptr, k.device, 1)
        check_integers("indices", indices, k.device, 1)
        if (kv_lens is None) == (last_page_len is None):
            raise ArgumentError("E060", "one of kv_lens and last_page_len says how many tokens requests hold")
        if last_page_len is not None:
            check_integers("last_page_len", last_page_len, k.device, 1)
            _one_a_request("last_page_len", last_page_len, indptr)
            kv_lens = _lengths(indptr, last_page_len, k.shape[1 if layout == "NHD" else 2])
        assert kv_lens is not None
        cache._hold(k, v, kv_lens, layout, k_scale, v_scale)
        _one_a_request("kv_lens", kv_lens, indptr)
        cache.table, cache.table_starts = indices, indptr
        return cache

    def _hold(
        self, k: Tensor, v: Tensor, kv_lens: Tensor, layout: Layout, k_scale: Scale | None, v_scale: Scale | None
    ) -> None:
        for name, x in (("k", k), ("v", v)):
            check_dense(name, x, _shape(layout))
        keys, values = (k, v) if layout == "NHD" else (k.transpose(1, 2), v.transpose(1, 2))
        super().__init__(keys, values, kv_lens, k_scale, v_scale, 0)
        self.page_size = keys.shape[1]
        if not self.page_size:
            raise ArgumentError("E060", f"k has shape {list(k.shape)}; a page has one slot at least")

    @property
    def capacity(self) -> int:
        """No request can hold more tokens; one whose list of pages is shorter holds fewer."""
        return min(self.table.shape[-1] * self.page_size, MOST)

    def places(self, request: int | Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks and slots of positions, which the table has."""
        request = torch.zeros_like(positions) + request
        page = positions // self.page_size
        if self.table_starts is None:
            blocks = self.table[request, page]
        else:
            blocks = self.table[self.table_starts[request] + page]
        return blocks.long(), positions % self.page_size

    def has_room(self, request: int | Tensor, positions: Tensor) -> Tensor:
        """Which positions have a slot: the table has their page, and there is such a page."""
        listed = positions < self.capacity
        if self.table_starts is not None:
            request = torch.zeros_like(positions) + request
            pages = self.table_starts[request + 1] - self.table_starts[request]
            listed = positions < pages * self.page_size
        room = listed.clone()
        whose = request if isinstance(request, int) else request[listed]
        blocks, _ = self.places(whose, positions[listed])
        room[listed] = (blocks >= 0) & (blocks < self.keys.shape[0])
        return room


def _shape(layout: str) -> str:
    if layout not in SHAPES:
        raise ArgumentError("E060", f'layout is "NHD" or "HND", not {layout!r}')
    return SHAPES[layout]


def _one_a_request(name: str, x: Tensor, indptr: Tensor) -> None:
    if x.shape[0] != indptr.shape[0] - 1:
        raise ArgumentError("E060", f"{name} has {x.shape[0]} requests, and indptr {indptr.shape[0] - 1}")


def _lengths(indptr: Tensor, last_page_len: Tensor, page_size: int) -> Tensor:
    pages = indptr[1:] - indptr[:-1]
    return torch.where(pages > 0, (pages - 1) * page_size + last_page_len, 0).to(torch.int32)
