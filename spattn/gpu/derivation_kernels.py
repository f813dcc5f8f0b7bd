"""Kernels that derive what attention reads from the tensors of a call: lists of blocks and tokens, ends of documents.

Sizes come from shapes, so that none waits for the device; none allocates, so that a graph captures them as they are.
Results do not depend on the order in which programs run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spattn.kernels.triton import NOWHERE, REQUEST

FREE = tl.constexpr(-1)  # of a slot that no document has taken
NOBODY = tl.constexpr(-2)  # what no slot holds: a thread that waits compares with it, and changes nothing


@triton.jit(do_not_specialize=["num_heads", "height", "width", "first_row", "rows", "first", "stop"])
def list_blocks(
    table_ptr, lists_ptr, num_heads, height, width, first_row, rows, first, stop,
    stride_b, stride_h, stride_m, stride_n, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of each row of a table how many of the columns from first to before stop it marks, then these, ascending."""
    row = first_row + tl.program_id(0) % rows
    bh = tl.program_id(0) // rows
    table_ptr += (bh // num_heads).to(tl.int64) * stride_b + (bh % num_heads).to(tl.int64) * stride_h
    table_ptr += row.to(tl.int64) * stride_m
    lists_ptr += tl.program_id(0).to(tl.int64) * (width + 1)
    # a row outside of the table marks none
    end = tl.where((row >= 0) & (row < height), tl.minimum(stop, width), 0)
    count = 0
    for start in range(0, end, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = (column >= first) & (column < end)
        marked = inside & (tl.load(table_ptr + column.to(tl.int64) * stride_n, mask=inside, other=0) != 0)
        number = marked.to(tl.int32)
        tl.store(lists_ptr + count + tl.cumsum(number, 0), column, mask=marked)
        count += tl.sum(number, 0)
    tl.store(lists_ptr, count)


@triton.jit(do_not_specialize=["count", "length"])
def place_tokens(
    tokens_ptr, requests_ptr, places_ptr, count, length, stride_b, stride_n, REQUESTS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Positions that tokens name, NOWHERE for those outside of a sequence and those named before.

    It has `length` positions, or with REQUESTS as many as the table of requests says.
    """
    b = tl.program_id(1).to(tl.int64)
    if REQUESTS:
        length = tl.load(requests_ptr + b * REQUEST + 1)
    tokens_ptr += b * stride_b
    mine = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    place = _position(tokens_ptr, mine, count, length, stride_n)
    repeated = tl.zeros([BLOCK], tl.int32)
    for start in range(0, (tl.program_id(0) + 1) * BLOCK, BLOCK):
        other = start + tl.arange(0, BLOCK)
        same = _position(tokens_ptr, other, count, length, stride_n)[None, :] == place[:, None]
        repeated |= tl.max((same & (other[None, :] < mine[:, None])).to(tl.int32), 1)
    tl.store(places_ptr + b * count + mine, tl.where(repeated != 0, NOWHERE, place), mask=mine < count)


@triton.jit
def _position(tokens_ptr, number, count, length, stride):
    """The position that a token names, NOWHERE if there is none such; negative ones count from the end."""
    token = tl.load(tokens_ptr + number.to(tl.int64) * stride, mask=number < count, other=NOWHERE).to(tl.int64)
    token = tl.where(token < 0, token + length, token)
    return tl.where((token >= 0) & (token < length), token, NOWHERE).to(tl.int32)


@triton.jit(do_not_specialize=["count"])
def sort_places(places_ptr, list_ptr, count, BLOCK: tl.constexpr):
    """Positions ascending: each goes where as many stand before it as are less, or equal and earlier."""
    b = tl.program_id(1).to(tl.int64)
    places_ptr += b * count
    mine = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    place = tl.load(places_ptr + mine, mask=mine < count, other=NOWHERE)
    before = tl.zeros([BLOCK], tl.int32)
    for start in range(0, count, BLOCK):
        other = start + tl.arange(0, BLOCK)
        theirs = tl.load(places_ptr + other, mask=other < count, other=NOWHERE)[None, :]
        less = (theirs < place[:, None]) | ((theirs == place[:, None]) & (other[None, :] < mine[:, None]))
        before += tl.sum((less & (other[None, :] < count)).to(tl.int32), 1)
    tl.store(list_ptr + b * count + before, place, mask=mine < count)


@triton.jit(do_not_specialize=["count", "length"])
def mark_tokens(
    tokens_ptr, requests_ptr, marks_ptr, count, length, stride_b, stride_n, REQUESTS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """1 at each position that a token names; the others are as they were. Arguments as of `place_tokens`."""
    b = tl.program_id(1).to(tl.int64)
    marks_ptr += b * length
    if REQUESTS:
        length = tl.minimum(tl.load(requests_ptr + b * REQUEST + 1), length)
    mine = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    place = _position(tokens_ptr + b * stride_b, mine, count, length, stride_n)
    tl.store(marks_ptr + place, 1, mask=place < length)


@triton.jit(do_not_specialize=["size"])
def clear(first_ptr, size, value, BLOCK: tl.constexpr):
    """`value` everywhere."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(first_ptr + place, tl.zeros([BLOCK], tl.int32) + value, mask=place < size)


@triton.jit(do_not_specialize=["length"])
def enter_documents(
    ids_ptr, owner_ptr, first_ptr, last_ptr, count_ptr, length, stride_b, stride_n,
    SLOTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Notes the first and last position and the number of positions of each document in a hash table of SLOTS.

    A document's slot is owned by one of its positions, whichever came first: what is noted is the same. Only the ends
    of runs of equal ids in a block are entered. All four numbers are -1 before: the first position is kept as NOWHERE
    less it, the count less 1, so that both grow.
    """
    b = tl.program_id(1).to(tl.int64)
    ids_ptr += b * stride_b
    table = b * SLOTS
    mine = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = mine < length
    own = tl.load(ids_ptr + mine.to(tl.int64) * stride_n, mask=inside, other=0)
    before = tl.load(ids_ptr + (mine - 1).to(tl.int64) * stride_n, mask=inside & (mine > 0), other=0)
    after = tl.load(ids_ptr + (mine + 1).to(tl.int64) * stride_n, mask=mine + 1 < length, other=0)
    begins = inside & ((mine % BLOCK == 0) | (before != own))
    ends = inside & ((mine % BLOCK == BLOCK - 1) | (mine + 1 == length) | (after != own))
    slot = _slot(own, SLOTS)
    waits = begins | ends
    while tl.max(waits.to(tl.int32), 0) != 0:
        # who waits for nothing asks a place of its own, so that nobody queues behind it
        asked = table + tl.where(waits, slot, mine & (SLOTS - 1))
        expected = tl.where(waits, FREE, NOBODY)
        owner = tl.atomic_cas(owner_ptr + asked, expected, mine, sem="relaxed")
        owner = tl.where(waits & (owner == FREE), mine, owner)
        theirs = tl.load(ids_ptr + owner.to(tl.int64) * stride_n, mask=waits & (owner >= 0), other=0)
        found = waits & (owner >= 0) & (theirs == own)
        tl.atomic_max(first_ptr + asked, -mine + NOWHERE, mask=found & begins, sem="relaxed")
        tl.atomic_max(last_ptr + asked, mine, mask=found & ends, sem="relaxed")
        share = tl.where(ends, mine + 1, 0) - tl.where(begins, mine, 0)
        tl.atomic_add(count_ptr + asked, share, mask=found, sem="relaxed")
        waits = waits & (found == 0)
        slot = (slot + 1) & (SLOTS - 1)


@triton.jit(do_not_specialize=["seen_length", "length", "part"])
def find_documents(
    seen_ptr, ids_ptr, owner_ptr, first_ptr, last_ptr, count_ptr, ends_ptr,
    seen_length, length, seen_stride_b, seen_stride_n, stride_b, stride_n, part,
    SLOTS: tl.constexpr, PLACED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """For each id that is seen, what `enter_documents` noted of it: its ends, and again if it lies in one piece.

    With PLACED an id below 0 is no document.
    """
    b = tl.program_id(1).to(tl.int64)
    seen_ptr += b * seen_stride_b
    ids_ptr += b * stride_b
    table = b * SLOTS
    mine = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = mine < seen_length
    own = tl.load(seen_ptr + mine.to(tl.int64) * seen_stride_n, mask=inside, other=0)
    slot = _slot(own, SLOTS)
    at = slot
    waits = inside & (own >= 0) if PLACED else inside
    found = inside & (mine < 0)
    while tl.max(waits.to(tl.int32), 0) != 0:
        owner = tl.load(owner_ptr + table + slot, mask=waits, other=FREE)
        theirs = tl.load(ids_ptr + owner.to(tl.int64) * stride_n, mask=waits & (owner >= 0), other=0)
        here = waits & (owner >= 0) & (theirs == own)
        at = tl.where(here, slot, at)
        found = found | here
        waits = waits & (owner >= 0) & (here == 0)
        slot = (slot + 1) & (SLOTS - 1)
    start = -tl.load(first_ptr + table + at, mask=found, other=NOWHERE) + NOWHERE
    stop = tl.load(last_ptr + table + at, mask=found, other=-1) + 1
    count = tl.load(count_ptr + table + at, mask=found, other=-1) + 1
    _store_ends(ends_ptr + b * seen_length + mine, part, start, stop, count == stop - start, inside)


@triton.jit
def _slot(ids, SLOTS: tl.constexpr):
    """Where a document is looked for first."""
    wide = ids.to(tl.int64)
    mixed = (wide ^ (wide >> 32)).to(tl.uint32) * 0x9E3779B1
    mixed = (mixed ^ (mixed >> 15)) * 0x85EBCA77
    return ((mixed ^ (mixed >> 13)) & (SLOTS - 1)).to(tl.int32)


@triton.jit
def _store_ends(ends_ptr, part, start, stop, whole, inside):
    """The four ends of a document, `part` numbers apart; its run is all of it, or nothing."""
    part = part.to(tl.int64)
    tl.store(ends_ptr, start, mask=inside)
    tl.store(ends_ptr + part, stop, mask=inside)
    tl.store(ends_ptr + 2 * part, tl.where(whole, start, 0), mask=inside)
    tl.store(ends_ptr + 3 * part, tl.where(whole, stop, 0), mask=inside)


@triton.jit(do_not_specialize=["length", "segments"])
def number_segments(starts_ptr, ids_ptr, length, segments, outside, stride, BLOCK: tl.constexpr):
    """Of each position the segment that holds it, `outside` where none does; `segments` + 1 starts are given."""
    position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    # starts[low - 1] <= position < starts[high]
    low = tl.zeros([BLOCK], tl.int32)
    high = tl.zeros([BLOCK], tl.int32) + segments + 1
    remaining = segments + 1
    while remaining > 0:
        middle = (low + high) // 2
        searched = low < high
        start = tl.load(starts_ptr + middle.to(tl.int64) * stride, mask=searched, other=0)
        before = searched & (start <= position)
        low = tl.where(before, middle + 1, low)
        high = tl.where(searched & (before == 0), middle, high)
        remaining = remaining // 2
    number = low - 1
    inside = (number >= 0) & (number < segments)
    tl.store(ids_ptr + position, tl.where(inside, number, outside), mask=position < length)


@triton.jit(do_not_specialize=["seen_length", "length", "segments", "part"])
def find_segments(
    seen_ptr, starts_ptr, ends_ptr, seen_length, length, segments, seen_stride_b, seen_stride_n, stride, part,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """For each number of a segment that is seen, where it starts and stops among `length` positions."""
    b = tl.program_id(1).to(tl.int64)
    mine = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = mine < seen_length
    own = tl.load(seen_ptr + b * seen_stride_b + mine.to(tl.int64) * seen_stride_n, mask=inside, other=-1).to(tl.int64)
    there = inside & (own >= 0) & (own < segments)
    start = tl.load(starts_ptr + own * stride, mask=there, other=0).to(tl.int64)
    stop = tl.load(starts_ptr + (own + 1) * stride, mask=there, other=0).to(tl.int64)
    start = tl.minimum(tl.maximum(start, 0), length).to(tl.int32)
    stop = tl.maximum(tl.minimum(tl.maximum(stop, 0), length).to(tl.int32), start)
    empty = stop <= start
    _store_ends(
        ends_ptr + b * seen_length + mine, part, tl.where(empty, 0, start), tl.where(empty, 0, stop), empty == 0, inside
    )


@triton.jit(
    do_not_specialize=[
        "count",
        "q_rows",
        "k_rows",
        "most_rows",
        "most_keys",
        "said_q_offset",
        "said_k_offset",
        "said_kv_len",
    ]
)
def place_requests(
    q_offset_ptr, k_offset_ptr, kv_len_ptr, q_lens_ptr, kv_lens_ptr, cu_q_ptr, cu_k_ptr, table_ptr,
    count, q_rows, k_rows, most_rows, most_keys, said_q_offset, said_k_offset, said_kv_len,
    stride_q_offset, stride_k_offset, stride_kv_len, stride_q_lens, stride_kv_lens, stride_cu_q, stride_cu_k,
    Q_OFFSET: tl.constexpr, K_OFFSET: tl.constexpr, KV_LEN: tl.constexpr, Q_LENS: tl.constexpr, KV_LENS: tl.constexpr,
    CU_Q: tl.constexpr, CU_K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Where requests stand and lie. What is given: 2 in a tensor, 1 in a number, 0 not at all."""
    b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = b < count
    first_row, q_len = _lengths(
        q_lens_ptr, cu_q_ptr, b, there, q_rows, most_rows, stride_q_lens, stride_cu_q, Q_LENS, CU_Q
    )
    first_key, num_keys = _lengths(
        kv_lens_ptr, cu_k_ptr, b, there, k_rows, most_keys, stride_kv_lens, stride_cu_k, KV_LENS, CU_K
    )
    k_offset = _offset(k_offset_ptr, b, there, said_k_offset, stride_k_offset, K_OFFSET)
    kv_len = k_offset + num_keys
    if KV_LEN > 0:
        kv_len = _offset(kv_len_ptr, b, there, said_kv_len, stride_kv_len, KV_LEN)
    kv_len = tl.maximum(kv_len, 0)
    q_offset = kv_len - q_len
    if Q_OFFSET > 0:
        q_offset = _offset(q_offset_ptr, b, there, said_q_offset, stride_q_offset, Q_OFFSET)
    # only keys of the whole are walked over
    before = tl.minimum(tl.maximum(-k_offset, 0), num_keys)
    inside = tl.maximum(tl.minimum(kv_len - k_offset, num_keys) - before, 0)
    table_ptr += b * REQUEST
    tl.store(table_ptr, q_len, mask=there)
    tl.store(table_ptr + 1, kv_len, mask=there)
    tl.store(table_ptr + 2, q_offset, mask=there)
    tl.store(table_ptr + 3, k_offset + before, mask=there)
    tl.store(table_ptr + 4, inside, mask=there)
    tl.store(table_ptr + 5, first_row, mask=there)
    tl.store(table_ptr + 6, first_key + before, mask=there)
    tl.store(table_ptr + 7, tl.where(CU_Q > 0, 0, b), mask=there)


@triton.jit
def _lengths(
    lens_ptr, ends_ptr, b, there, rows, most, stride_lens, stride_ends, LENS: tl.constexpr, ENDS: tl.constexpr
):
    """(first, count) of each request's rows in a tensor that has so many, whatever the tensors hold."""
    first = tl.zeros_like(b)
    length = tl.zeros_like(b) + most
    if LENS > 0:
        length = _within(tl.load(lens_ptr + b.to(tl.int64) * stride_lens, mask=there, other=0), most)
    if ENDS > 0:
        first = _within(tl.load(ends_ptr + b.to(tl.int64) * stride_ends, mask=there, other=0), rows)
        stop = _within(tl.load(ends_ptr + (b + 1).to(tl.int64) * stride_ends, mask=there, other=0), rows)
        length = tl.minimum(tl.maximum(stop - first, 0), most)
    return first, length


@triton.jit
def _offset(offset_ptr, b, there, said, stride, GIVEN: tl.constexpr):
    """An offset of each request, of 31 bits whatever the tensor holds."""
    found = tl.zeros_like(b) + said
    if GIVEN == 2:
        given = tl.load(offset_ptr + b.to(tl.int64) * stride, mask=there, other=0).to(tl.int64)
        found = tl.minimum(tl.maximum(given, -(1 << 29)), 1 << 30).to(tl.int32)
    return found


@triton.jit
def _within(given, most):
    """A length of at most so many."""
    return tl.minimum(tl.maximum(given.to(tl.int64), 0), most).to(tl.int32)
