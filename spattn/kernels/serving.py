"""The kernel that appends to caches: a program writes the key and the value of one head of one new token."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def request_of(token, cu_ptr, batch, SEARCH: tl.constexpr):
    """The request that has a packed token, by bisection of the ends of all; `batch` if none has it."""
    low = 0
    high = batch
    for _ in range(SEARCH):
        middle = (low + high) // 2
        after = (low < high) & (tl.load(cu_ptr + tl.minimum(middle, batch - 1) + 1) <= token)
        high = tl.where(after | (low >= high), high, middle)
        low = tl.where(after, middle + 1, low)
    return low


@triton.jit
def ring_slot(position, kept_ptr, window, window_base, PIECES: tl.constexpr):
    """The slot of a position in a ring: of the first piece of kept positions that has it, else of the window."""
    slot = window_base + position % window
    kept = position < 0
    for i in range(PIECES):
        step = tl.load(kept_ptr + 5 * i)
        first = tl.load(kept_ptr + 5 * i + 2)
        count = tl.load(kept_ptr + 5 * i + 3)
        base = tl.load(kept_ptr + 5 * i + 4)
        place = (position - first) // step
        inside = (position >= first) & ((position - first) % step == 0) & (place < count)
        slot = tl.where(inside & (kept == 0), base + place, slot)
        kept = kept | inside
    return slot, kept


@triton.jit
def float8_bits(x, MANTISSA: tl.constexpr, MOST: tl.constexpr):
    """The bits of a float32 as e4m3fn or e5m2, which have so many bits of a mantissa; beyond MOST it saturates.

    To the nearest, ties to even, on GPUs too that have no such conversion.
    """
    BIAS: tl.constexpr = 7 if MANTISSA == 3 else 15
    SHIFT: tl.constexpr = 23 - MANTISSA
    # added to a number without a bit of its own before the point, it leaves its bits in the last places
    TINY: tl.constexpr = (127 - BIAS + SHIFT + 1) << 23
    bits = x.to(tl.int32, bitcast=True)
    sign = (bits >> 24) & 0x80
    size = tl.minimum(tl.abs(x), MOST)
    normal = size.to(tl.int32, bitcast=True)
    odd = (normal >> SHIFT) & 1
    normal = (normal - ((127 - BIAS) << 23) + ((1 << (SHIFT - 1)) - 1) + odd) >> SHIFT
    tiny = tl.full([1], TINY, tl.int32)
    small = (size + tiny.to(tl.float32, bitcast=True)).to(tl.int32, bitcast=True) - tiny
    found = tl.where(size.to(tl.int32, bitcast=True) < ((128 - BIAS) << 23), small, normal)
    return (tl.where(x != x, 0x7F, found) | sign).to(tl.uint8)


@triton.jit
def store_head(
    new_ptr, stored_ptr, scale_ptr, head, width,
    SCALES: tl.constexpr, MANTISSA: tl.constexpr, MOST: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Copies `width` numbers of a head, divided by its scale; to the bits of float8 where it has a MANTISSA."""
    for start in range(0, WIDTH, BLOCK):
        d = start + tl.arange(0, BLOCK)
        inside = d < width
        x = tl.load(new_ptr + d, mask=inside, other=0.0)
        if SCALES > 0:
            x = tl.div_rn(x.to(tl.float32), tl.load(scale_ptr + (head if SCALES > 1 else 0)))
        if MANTISSA > 0:
            tl.store(stored_ptr + d, float8_bits(x.to(tl.float32), MANTISSA, MOST), mask=inside)
        else:
            tl.store(stored_ptr + d, x.to(stored_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["new", "batch", "capacity", "blocks", "stride_table", "window", "window_base"])
def append_kernel(
    k_new_ptr, v_new_ptr, keys_ptr, values_ptr, k_scale_ptr, v_scale_ptr,
    kv_lens_ptr, cu_ptr, table_ptr, starts_ptr, kept_ptr,
    new, batch, capacity, blocks, stride_table,
    stride_kb, stride_kt, stride_kh, stride_vb, stride_vt, stride_vh,
    stride_keys_block, stride_keys_slot, stride_keys_head,
    stride_values_block, stride_values_slot, stride_values_head,
    window, window_base,
    SEARCH: tl.constexpr, PAGE_SIZE: tl.constexpr, PIECES: tl.constexpr, RING: tl.constexpr,
    K_SCALES: tl.constexpr, V_SCALES: tl.constexpr, MANTISSA: tl.constexpr, MOST: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes new tokens behind those that requests hold; one without a slot is left out.

    The grid is (tokens, heads). SEARCH steps find the request of a packed token; 0 where each request has `new` tokens.
    """
    token = tl.program_id(0)
    head = tl.program_id(1)
    if SEARCH > 0:
        request = request_of(token, cu_ptr, batch, SEARCH)
        there = (request < batch) & (token >= tl.load(cu_ptr))
        request = tl.minimum(request, batch - 1)
        first = tl.load(cu_ptr + request)
        count = tl.load(cu_ptr + request + 1) - first
        order = token - first
        row = token
        entry = request * 0
    else:
        request = token // new
        order = token % new
        row = order
        entry = request
        count = new
        there = True
    held = tl.load(kv_lens_ptr + request)
    position = held + order
    there = there & (position >= 0) & (position < capacity)
    block = request
    slot = position
    if PAGE_SIZE > 0:
        page = position // PAGE_SIZE
        slot = position % PAGE_SIZE
        begin = request.to(tl.int64) * stride_table
        if starts_ptr is not None:
            begin = tl.load(starts_ptr + request).to(tl.int64)
            there = there & (page < tl.load(starts_ptr + request + 1) - tl.load(starts_ptr + request))
        block = tl.load(table_ptr + begin + page.to(tl.int64), mask=there, other=-1)
        there = there & (block >= 0) & (block < blocks)
    if RING:
        slot, kept = ring_slot(position, kept_ptr, window, window_base, PIECES)
        there = there & (kept | (position >= held + count - window))
    k_new = k_new_ptr + entry.to(tl.int64) * stride_kb + row.to(tl.int64) * stride_kt + head * stride_kh
    v_new = v_new_ptr + entry.to(tl.int64) * stride_vb + row.to(tl.int64) * stride_vt + head * stride_vh
    block = block.to(tl.int64)
    slot = slot.to(tl.int64)
    keys = keys_ptr + block * stride_keys_block + slot * stride_keys_slot + head * stride_keys_head
    values = values_ptr + block * stride_values_block + slot * stride_values_slot + head * stride_values_head
    store_head(k_new, keys, k_scale_ptr, head, tl.where(there, HEAD_DIM, 0), K_SCALES, MANTISSA, MOST, HEAD_DIM, BLOCK)
    store_head(
        v_new, values, v_scale_ptr, head, tl.where(there, V_HEAD_DIM, 0), V_SCALES, MANTISSA, MOST, V_HEAD_DIM, BLOCK
    )
