"""What every generated kernel of Triton may call: sums, masks and loads of a tile, finished parts of a softmax.

Emitted files import these; `spattnc emit --standalone` writes them out. The compiler that generates reads this file as
text: a constant or a function is one statement at its top level.
"""

from __future__ import annotations

import triton
import triton.language as tl

NOWHERE = tl.constexpr(1 << 30)  # past every position
LN_2 = tl.constexpr(0.6931471805599453)
LOG2_E = tl.constexpr(1.4426950408889634)
ROW_STATS = tl.constexpr(4)  # numbers that dq leaves of a row, two unused: the 16 bytes that a thread loads at a time
REQUEST = tl.constexpr(8)  # numbers of a request in the table of requests
SCANNED = tl.constexpr(64)  # tiles that a program looks through whose rows may have to be mended


@triton.jit
def floor_div(x, d):
    """x divided by d > 0, rounded down; Triton's // rounds towards zero."""
    quotient = x // d
    return quotient - tl.where(quotient * d > x, 1, 0)


@triton.jit
def floor_mod(x, d):
    """The remainder in [0, d) of x divided by d > 0."""
    remainder = x % d
    return remainder + tl.where(remainder < 0, d, 0)


@triton.jit
def narrowed(number):
    """A number of 64 bits as the nearest that may be a position."""
    if number.dtype == tl.int64:
        number = tl.minimum(tl.maximum(number, -NOWHERE), NOWHERE).to(tl.int32)
    return number


@triton.jit
def read_0(pointer):
    """A scalar tensor."""
    return tl.load(pointer)


@triton.jit
def read_1(pointer, i, size_i, stride_i):
    """pointer[i], the index clipped into the tensor."""
    place = tl.minimum(tl.maximum(i, 0), size_i - 1)
    return tl.load(pointer + place.to(tl.int64) * stride_i)


@triton.jit
def read_2(pointer, i, size_i, stride_i, j, size_j, stride_j):
    """pointer[i, j], the indices clipped into the tensor."""
    row = tl.minimum(tl.maximum(i, 0), size_i - 1).to(tl.int64) * stride_i
    return tl.load(pointer + row + tl.minimum(tl.maximum(j, 0), size_j - 1).to(tl.int64) * stride_j)


@triton.jit
def read_3(pointer, i, size_i, stride_i, j, size_j, stride_j, k, size_k, stride_k):
    """pointer[i, j, k], the indices clipped into the tensor."""
    row = tl.minimum(tl.maximum(i, 0), size_i - 1).to(tl.int64) * stride_i
    row += tl.minimum(tl.maximum(j, 0), size_j - 1).to(tl.int64) * stride_j
    return tl.load(pointer + row + tl.minimum(tl.maximum(k, 0), size_k - 1).to(tl.int64) * stride_k)


@triton.jit
def clipped(i, size, stride):
    """Where index i of a dimension lies, clipped into it."""
    return tl.minimum(tl.maximum(i, 0), size - 1).to(tl.int64) * stride


@triton.jit
def tanh(x):
    """Hyperbolic tangent, to a unit or two in the last place: near 0 by its series, where exponentials cancel."""
    size = tl.abs(x)
    t = tl.exp2(size * (-2.0 * LOG2_E))
    far = (1.0 - t) / (1.0 + t)
    u = x * x
    near = size * (1.0 + u * (-1 / 3 + u * (2 / 15 + u * (-17 / 315 + u * (62 / 2835)))))
    value = tl.where(size < 0.25, near, far)
    return tl.where(x < 0, -value, value)


@triton.jit
def least(x, y):
    """The lesser of two, NaN where one is."""
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def greatest(x, y):
    """The greater of two, NaN where one is."""
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def sign(x):
    """1 above 0, -1 below, 0 at 0."""
    return tl.where(x > 0, 1, 0) - tl.where(x < 0, 1, 0)


@triton.jit
def less(x, y):
    """1 where x < y, 1/2 where they are equal, else 0."""
    return tl.where(x < y, 1.0, tl.where(x == y, 0.5, 0.0))


@triton.jit
def in_list(pointer, row, value, first_row, rows, width, stride_row):
    """Is value in the list of its row?"""
    place = tl.minimum(tl.maximum(row - first_row, 0), rows - 1).to(tl.int64) * stride_row
    found = (value < 0) & (row < 0)
    for slot in range(1, width):
        found |= tl.load(pointer + place + slot) == value
    return found


@triton.jit
def given_list(pointer, row, rows, width, stride_row):
    """The list of a row, which may lie outside of all, and how many blocks it has."""
    inside = (row >= 0) & (row < rows)
    pointer += tl.where(inside, row, 0).to(tl.int64) * stride_row
    count = tl.minimum(tl.maximum(tl.load(pointer), 0), width - 1)
    return pointer, tl.where(inside, count, 0)


@triton.jit
def listed_block(block, size):
    """A block of positions that count, else the one past them all."""
    last: tl.constexpr = NOWHERE // size
    return tl.where((block < 0) | (block > last), last, block)


@triton.jit
def has_bit(word, place):
    """Has a number of 64 bits the bit at a place?"""
    shift = tl.minimum(tl.maximum(place, 0), 62)
    return (place == shift) & (((word.to(tl.int64) >> shift.to(tl.int64)) & 1) != 0)


@triton.jit
def in_tokens(pointer, position, length, size, stride):
    """Is position one of the tokens, which count from length where they are negative?"""
    found = (position < 0) & (length < 0)
    for slot in range(0, size):
        token = tl.load(pointer + slot * stride)
        found |= position == tl.where(token < 0, token + length, token)
    return found


@triton.jit
def carried(allowed, factor):
    """A mask as it leaves a branch: as numbers if it is float32 that is multiplied.

    Products of these want their factors in shared memory, where Triton 3.6 would put the mask too, and cannot.
    """
    if factor.dtype == tl.float32:
        allowed = tl.where(allowed, 1, 0)
    return allowed


@triton.jit
def below(number, count):
    """0 <= number < count in one comparison: without signs, numbers below 0 are the greatest."""
    return number.to(tl.uint32) < tl.cast(count, tl.uint32)


@triton.jit
def tiles_of(lo, hi, cursor, BLOCK_N: tl.constexpr):
    """The key tiles of a range behind the cursor: (first key, their number, next cursor)."""
    lo = tl.maximum(lo, cursor)
    tiles = tl.maximum(hi - lo + BLOCK_N, 0) // BLOCK_N
    return lo, tiles, tl.where(lo <= hi, lo + tiles * BLOCK_N, cursor)


@triton.jit
def listed_head(bh_ptr, bh, LISTED_HEADS: tl.constexpr):
    """The batch entry and head that a launch has at a place: all in order, or those of a list."""
    if LISTED_HEADS:
        bh = tl.load(bh_ptr + bh)
    return bh


@triton.jit
def split_of(place, splits, SPLIT_KV: tl.constexpr):
    """The tile that a program has, and which of its splits."""
    if SPLIT_KV:
        return place // splits, place % splits
    return place, 0


@triton.jit
def share(tiles, split, splits, SPLIT_KV: tl.constexpr):
    """The part [begin, end) of a number of key tiles that one of the splits has: all, without splits."""
    if not SPLIT_KV:
        return 0, tiles
    each = (tiles + splits - 1) // splits
    begin = tl.minimum(split * each, tiles)
    return begin, tl.minimum(begin + each, tiles)


@triton.jit
def full_tiles(lo, end, full_lo, full_hi, BLOCK_N: tl.constexpr):
    """Of `end` tiles from lo on: how many come before the first full one, and how many are full."""
    before = tl.minimum(tl.maximum(full_lo - lo + BLOCK_N - 1, 0) // BLOCK_N, end)
    return before, tl.maximum(tl.minimum(tl.maximum(full_hi - lo + BLOCK_N, 0) // BLOCK_N, end) - before, 0)


@triton.jit
def tiles_in(end, full, phase: tl.constexpr, PEELED: tl.constexpr):
    """How many of a loop's tiles a phase has: where loops are peeled, first the partial tiles, then the full ones."""
    if not PEELED:
        return end
    if phase:
        return full
    return end - full


@triton.jit
def tile_number(number, before, full, phase: tl.constexpr, PEELED: tl.constexpr):
    """Which tile of a loop comes at a place: where loops are peeled, those around the full ones first."""
    if not PEELED:
        return number
    if phase:
        return number + before
    return tl.where(number < before, number, number + full)


@triton.jit
def store_row_stats(row_stats_ptr, row, row_ok, lse2, delta):
    """What dk and dv need of a row of queries, side by side."""
    tl.store(row_stats_ptr + row * ROW_STATS, lse2, mask=row_ok)
    tl.store(row_stats_ptr + row * ROW_STATS + 1, delta, mask=row_ok)


@triton.jit
def load_row_stats(row_stats_ptr, row, inside):
    """lse2 and delta of a tile of rows, 0 outside; as one number, in one load, which no thread repeats for others."""
    half = tl.arange(0, ROW_STATS // 2)[None, :]
    pointers = row_stats_ptr.to(tl.pointer_type(tl.int64)) + (row * (ROW_STATS // 2))[:, None] + half
    both = tl.sum(tl.where(half == 0, tl.load(pointers, mask=inside[:, None], other=0), 0), 1)
    lse2 = both.to(tl.int32).to(tl.float32, bitcast=True)
    return lse2, (both >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def nonfinite(values):
    """NaN for a row that has inf or NaN, else 0: zero times these is no zero. By row no warp waits for another."""
    return tl.sum(values * 0.0, 1)


@triton.jit
def any_nonfinite(flags_ptr, first, stop, COUNT: tl.constexpr, BLOCK_M: tl.constexpr):
    """Is a row flagged of the tiles from first to before stop, COUNT at most?"""
    row = tl.arange(0, COUNT * BLOCK_M)
    found = tl.load(
        flags_ptr + tl.cast(first, tl.int64) * BLOCK_M + row, mask=row < (stop - first) * BLOCK_M, other=0.0
    )
    return tl.max(tl.where(found != found, 1, 0), 0) > 0


@triton.jit
def normalised(acc, m_i, l_i):
    """The state of the softmax as a finished part: (part, its base-2 log)."""
    total = tl.where(l_i == 0.0, 1.0, l_i)
    return acc * (1.0 / total)[:, None], m_i + tl.log2(total)


@triton.jit
def row_scale(part):
    """A power of two for each row: divided by it, a part's finite values lie within 2^15, where 16 bits hold them."""
    size = tl.abs(part)
    exponent = tl.max(tl.where(size < float("inf"), size, 0.0), 1).to(tl.int32, bitcast=True) & (255 << 23)
    return (tl.maximum(exponent, 15 << 23) - (14 << 23)).to(tl.float32, bitcast=True)


@triton.jit
def store_part(part_ptr, lse_ptr, scale_ptr, row, row_ok, dims, part, lse, WIDTH: tl.constexpr):
    """A finished part of rows: its values divided by their row's scale, a base-2 log, the scale."""
    store_scaled(part_ptr, lse_ptr, scale_ptr, row, row_ok, dims, part, lse, row_scale(part), WIDTH)


@triton.jit
def store_scaled(part_ptr, lse_ptr, scale_ptr, row, row_ok, dims, part, lse, scale, WIDTH: tl.constexpr):
    """store_part with a scale that is known."""
    shrink = ((254 << 23) - scale.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    kept = row_ok[:, None] & (dims < WIDTH)[None, :]
    tl.store(
        part_ptr + row[:, None] * WIDTH + dims[None, :],
        (part * shrink[:, None]).to(part_ptr.dtype.element_ty),
        mask=kept,
    )
    tl.store(lse_ptr + row, lse, mask=row_ok)
    tl.store(scale_ptr + row, scale, mask=row_ok)


@triton.jit
def load_part(part_ptr, lse_ptr, scale_ptr, row, row_ok, dims, WIDTH: tl.constexpr):
    """What store_part left: (part, lse), empty where a row is not ok."""
    kept = row_ok[:, None] & (dims < WIDTH)[None, :]
    part = tl.load(part_ptr + row[:, None] * WIDTH + dims[None, :], mask=kept, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr + row, mask=row_ok, other=0.0)
    return part * scale[:, None], tl.load(lse_ptr + row, mask=row_ok, other=float("-inf"))


@triton.jit
def add_part(acc, m_i, l_i, part, part_lse):
    """A finished part of the same rows joins the state of the softmax; part_lse is a base-2 log."""
    m_new = tl.maximum(m_i, part_lse)
    m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
    alpha = tl.exp2(m_i - m_safe)
    beta = tl.exp2(part_lse - m_safe)
    return acc * alpha[:, None] + part * beta[:, None], m_new, l_i * alpha + beta


@triton.jit
def in_order(lo_a, hi_a, full_lo_a, full_hi_a, lo_b, hi_b, full_lo_b, full_hi_b):
    """Two ranges by first key, an empty one last."""
    swap = tl.where(hi_b < lo_b, NOWHERE, lo_b) < tl.where(hi_a < lo_a, NOWHERE, lo_a)
    return (
        tl.where(swap, lo_b, lo_a),
        tl.where(swap, hi_b, hi_a),
        tl.where(swap, full_lo_b, full_lo_a),
        tl.where(swap, full_hi_b, full_hi_a),
        tl.where(swap, lo_a, lo_b),
        tl.where(swap, hi_a, hi_b),
        tl.where(swap, full_lo_a, full_lo_b),
        tl.where(swap, full_hi_a, full_hi_b),
    )


@triton.jit
def load_tile(pointers, inside, dims_inside, PADDED: tl.constexpr):
    """A tile of keys or values, 0 outside; dimensions are checked where they are padded."""
    if PADDED:
        inside = inside & dims_inside
    return tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def empty_softmax(BLOCK_M: tl.constexpr, BLOCK_DV: tl.constexpr):
    """The state of the softmax before the first key: weighted sum, greatest score in base 2, sum of weights."""
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    return acc, tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32)


@triton.jit
def online_softmax(scores, allowed, v, acc, m_i, l_i, qk_scale, PRECISION: tl.constexpr, REPAIR: tl.constexpr):
    """One step of the online softmax; scores are unscaled, -inf where a pair is not allowed.

    REPAIR: for values that hold inf or NaN. 0 * inf would spoil the rows that may not see them.
    """
    m_new = tl.maximum(m_i, tl.max(scores, 1) * qk_scale)
    m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
    p = tl.exp2(scores * qk_scale - m_safe[:, None])
    alpha = tl.exp2(m_i - m_safe)
    l_i = l_i * alpha + tl.sum(p, 1)
    finite = v
    if REPAIR:
        finite = tl.where(tl.abs(v) < float("inf"), v, 0.0).to(v.dtype)
    acc = tl.dot(p.to(v.dtype), finite, acc * alpha[:, None], input_precision=PRECISION)
    if REPAIR:
        seen = ones(allowed, scores).to(v.dtype)
        rises = tl.where((tl.abs(v) < float("inf")) | (v < 0), 0.0, 1.0).to(v.dtype)
        falls = tl.where((tl.abs(v) < float("inf")) | (v > 0), 0.0, 1.0).to(v.dtype)
        acc += tl.where(tl.dot(seen, rises, input_precision=PRECISION) > 0, float("inf"), 0.0)
        acc -= tl.where(tl.dot(seen, falls, input_precision=PRECISION) > 0, float("inf"), 0.0)
    return acc, m_new, l_i


@triton.jit
def ones(allowed, like):
    """1 where a pair is allowed, else 0."""
    # of numbers that lie as a product's result does: Triton 3.6 cannot make a factor of every mask
    return tl.where(allowed, tl.minimum(tl.abs(like), 0.0) + 1.0, 0.0)


@triton.jit
def accumulated(weights, allowed, values, acc, PRECISION: tl.constexpr, REPAIR: tl.constexpr):
    """acc + weights @ values.

    REPAIR: for values that hold inf or NaN. NaN where an allowed pair meets one, which else counts 0.
    """
    if not REPAIR:
        return tl.dot(weights.to(values.dtype), values, acc, input_precision=PRECISION)
    weights = tl.where(allowed, weights, 0.0)
    finite = tl.abs(values) < float("inf")
    kept = tl.where(finite, values, 0.0).to(values.dtype)
    acc = tl.dot(weights.to(values.dtype), kept, acc, input_precision=PRECISION)
    seen = ones(allowed, weights).to(values.dtype)
    met = tl.dot(seen, tl.where(finite, 0.0, 1.0).to(values.dtype), input_precision=PRECISION)
    return acc + tl.where(met > 0, float("nan"), 0.0)


@triton.jit
def request_of(
    requests_ptr,
    b,
    q_len,
    kv_len,
    q_offset,
    k_offset,
    num_keys,
    ALL_KEYS: tl.constexpr,
    REQUESTS: tl.constexpr,
):
    """The lengths of a batch entry, and where its tensors lie.

    Returns:
        q_len, kv_len, q_offset, k_offset, num_keys: The call's, or the request's own.
        q_shift, k_shift: What a row's or a key's position is ahead of its place in the tensors.
        entry: Of the tensors.
    """
    if REQUESTS:
        own = requests_ptr + b * REQUEST
        q_offset = tl.load(own + 2)
        k_offset = tl.load(own + 3)
        q_shift = q_offset - tl.load(own + 5)
        k_shift = k_offset - tl.load(own + 6)
        num_keys = tl.load(own + 4)
        return tl.load(own), tl.load(own + 1), q_offset, k_offset, num_keys, q_shift, k_shift, tl.load(own + 7)
    if ALL_KEYS:
        first = tl.full((), 0, tl.int32)
        return q_len, kv_len, q_offset, first, kv_len, q_offset, first, b
    return q_len, kv_len, q_offset, k_offset, num_keys, q_offset, k_offset, b


@triton.jit
def rows_from(start, begin, end, BLOCK_M: tl.constexpr):
    """Rows of a tile: coordinates, the first and the last of those from begin to before end, which these are."""
    u = start + tl.arange(0, BLOCK_M)
    return u, tl.maximum(start, begin), tl.minimum(start + BLOCK_M, end) - 1, (u >= begin) & (u < end)


@triton.jit
def ends_of(numbers, ok):
    """The least and the greatest of those that are ok."""
    return tl.min(tl.where(ok, numbers, NOWHERE), 0), tl.max(tl.where(ok, numbers, -NOWHERE), 0)


@triton.jit
def columns_of(start_n, last, BLOCK_N: tl.constexpr, NO_TAIL: tl.constexpr, PEELED: tl.constexpr):
    """A tile of columns: where it starts, coordinates, which are its own, which to load.

    Where there are columns for a whole tile, one that would pass the last starts earlier: loads need no mask, and its
    own are those that the tile before has not. A peeled loop has whole tiles only.
    """
    load_n = start_n
    if NO_TAIL and not PEELED:
        load_n = tl.minimum(start_n, last - BLOCK_N + 1)
    offs_n = load_n + tl.arange(0, BLOCK_N)
    if NO_TAIL or PEELED:
        return load_n, offs_n, offs_n >= start_n, tl.full([BLOCK_N], True, tl.int1)
    return load_n, offs_n, offs_n <= last, offs_n <= last


@triton.jit
def row_range(lo, hi, offs_m):
    """Each row's own range of columns as its first and how many; either end may be one number for all rows."""
    count = tl.maximum(hi - lo + 1, 0)
    return tl.broadcast_to(lo, offs_m.shape), tl.broadcast_to(count, offs_m.shape)


@triton.jit
def places_from(base, STEP: tl.constexpr, BLOCK_N: tl.constexpr, INT64_OFFSETS: tl.constexpr):
    """Of a tile whose first column lies at base: a scalar and a vector whose sums are the columns' places.

    They are counted from the tile before: nothing else shares that, so LLVM makes addresses that differ by constants.
    """
    along = tl.arange(BLOCK_N, 2 * BLOCK_N) * STEP
    if INT64_OFFSETS:
        along = along.to(tl.int64)
    return base.to(tl.int64) - BLOCK_N * STEP, along


@triton.jit
def head_of(pointer, b, stride_b, h, stride_h):
    """Where a head of a batch entry begins."""
    return pointer + b.to(tl.int64) * stride_b + h.to(tl.int64) * stride_h


@triton.jit
def load_rows(head, m, stride_m, dims, row_ok, WIDTH: tl.constexpr):
    """Rows of a head, 0 where they are not ok."""
    kept = row_ok[:, None] & (dims < WIDTH)[None, :]
    return tl.load(head + m[:, None] * stride_m + dims[None, :], mask=kept, other=0.0)


@triton.jit
def store_rows(head, m, stride_m, dims, row_ok, values, WIDTH: tl.constexpr):
    """Rows of a head, in its dtype, where they are ok."""
    kept = row_ok[:, None] & (dims < WIDTH)[None, :]
    tl.store(head + m[:, None] * stride_m + dims[None, :], values.to(head.dtype.element_ty), mask=kept)


@triton.jit
def rows_of_split(split_row_ptr, at, splits, rows, BLOCK_M: tl.constexpr):
    """The rows of tile `at` whose splits are combined.

    Returns:
        row: int64, among those of all heads; -1 where another pass has the row, or none.
        bh, m: The head that the tile is of, and the rows' places in it.
    """
    row = tl.load(split_row_ptr + at.to(tl.int64) * splits * BLOCK_M + tl.arange(0, BLOCK_M))
    bh = tl.max(row, 0) // rows
    return row, bh, row - bh * rows


@triton.jit(do_not_specialize=["splits", "rows", "heads", "chunks"])
def combine_forward(
    split_ptr,
    split_lse_ptr,
    split_scale_ptr,
    split_row_ptr,
    part_in_ptr,
    part_in_lse_ptr,
    part_in_scale_ptr,
    part_out_ptr,
    part_out_lse_ptr,
    part_out_scale_ptr,
    out_ptr,
    stride_ob,
    stride_oh,
    lse_ptr,
    splits,
    rows,
    heads,
    chunks,
    stride_om: tl.constexpr,
    V_HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    RESUME: tl.constexpr,
    FINAL: tl.constexpr,
):
    """The splits of a tile as one softmax, always in the same order: BLOCK_D dimensions of it."""
    at = tl.program_id(0) // chunks
    dims = tl.program_id(0) % chunks * BLOCK_D + tl.arange(0, BLOCK_D)
    row, bh, m = rows_of_split(split_row_ptr, at, splits, rows, BLOCK_M)
    row_ok = row >= 0
    # of all dimensions, though a program has some: a mean of parts is no greater than they are
    scale = tl.zeros([BLOCK_M], tl.float32)
    acc, m_i, l_i = empty_softmax(BLOCK_M, BLOCK_D)
    if RESUME:
        acc, m_i = load_part(part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, row, row_ok, dims, V_HEAD_DIM)
        l_i = tl.where(m_i == float("-inf"), 0.0, 1.0)
        scale = tl.load(part_in_scale_ptr + row, mask=row_ok, other=0.0)
    for split in tl.range(0, splits, num_stages=4):
        slot = (at * splits + split).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
        part, part_lse = load_part(split_ptr, split_lse_ptr, split_scale_ptr, slot, slot >= 0, dims, V_HEAD_DIM)
        scale = tl.maximum(scale, tl.load(split_scale_ptr + slot))
        acc, m_i, l_i = add_part(acc, m_i, l_i, part, part_lse)
    acc, lse = normalised(acc, m_i, l_i)
    if FINAL:
        out_head = head_of(out_ptr, bh // heads, stride_ob, bh % heads, stride_oh)
        store_rows(out_head, m, stride_om, dims, row_ok, acc, V_HEAD_DIM)
        tl.store(lse_ptr + row, lse * LN_2, mask=row_ok)
    else:
        store_scaled(part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, row, row_ok, dims, acc, lse, scale, V_HEAD_DIM)


@triton.jit
def combine_gradient(
    split_ptr,
    part_in_ptr,
    part_out_ptr,
    out_ptr,
    stride_b,
    stride_h,
    at,
    row,
    bh,
    m,
    dims,
    splits,
    heads,
    factor,
    stride_m: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    RESUME: tl.constexpr,
    FINAL: tl.constexpr,
):
    """The splits of one gradient of a tile added in order, after what earlier passes left."""
    row_ok, inside = row >= 0, (dims < WIDTH)[None, :]
    total = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if RESUME:
        total = tl.load(part_in_ptr + row[:, None] * WIDTH + dims[None, :], mask=row_ok[:, None] & inside, other=0.0)
    for split in tl.range(0, splits, num_stages=4):
        slot = (at * splits + split).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
        total += tl.load(split_ptr + slot[:, None] * WIDTH + dims[None, :], mask=inside, other=0.0)
    if FINAL:
        head = head_of(out_ptr, bh // heads, stride_b, bh % heads, stride_h)
        store_rows(head, m, stride_m, dims, row_ok, total * factor, WIDTH)
    else:
        store_rows(part_out_ptr, row, WIDTH, dims, row_ok, total, WIDTH)


@triton.jit(do_not_specialize=["splits", "rows", "heads", "chunks"])
def combine_grad_q(
    split_ptr,
    split_row_ptr,
    part_in_ptr,
    part_out_ptr,
    dq_ptr,
    stride_dqb,
    stride_dqh,
    splits,
    rows,
    heads,
    chunks,
    qk_scale,
    stride_dqm: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    RESUME: tl.constexpr,
    FINAL: tl.constexpr,
):
    """The splits of a tile of dq: BLOCK_D dimensions of it."""
    at = tl.program_id(0) // chunks
    dims = tl.program_id(0) % chunks * BLOCK_D + tl.arange(0, BLOCK_D)
    row, bh, m = rows_of_split(split_row_ptr, at, splits, rows, BLOCK_M)
    combine_gradient(
        split_ptr, part_in_ptr, part_out_ptr, dq_ptr, stride_dqb, stride_dqh, at, row, bh, m, dims, splits, heads,
        qk_scale * LN_2, stride_dqm, HEAD_DIM, BLOCK_M, BLOCK_D, RESUME, FINAL,
    )  # fmt: skip


@triton.jit(do_not_specialize=["splits", "rows", "heads", "chunks"])
def combine_grad_kv(
    split_k_ptr,
    split_v_ptr,
    split_row_ptr,
    part_in_k_ptr,
    part_in_v_ptr,
    part_out_k_ptr,
    part_out_v_ptr,
    dk_ptr,
    stride_dkb,
    stride_dkh,
    dv_ptr,
    stride_dvb,
    stride_dvh,
    splits,
    rows,
    heads,
    chunks,
    qk_scale,
    stride_dkn: tl.constexpr,
    stride_dvn: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    V_HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    RESUME: tl.constexpr,
    FINAL: tl.constexpr,
):
    """The splits of a tile of dk and of dv: BLOCK_D dimensions of both."""
    at = tl.program_id(0) // chunks
    dims = tl.program_id(0) % chunks * BLOCK_D + tl.arange(0, BLOCK_D)
    row, bh, n = rows_of_split(split_row_ptr, at, splits, rows, BLOCK_M)
    combine_gradient(
        split_k_ptr, part_in_k_ptr, part_out_k_ptr, dk_ptr, stride_dkb, stride_dkh, at, row, bh, n, dims, splits, heads,
        qk_scale * LN_2, stride_dkn, HEAD_DIM, BLOCK_M, BLOCK_D, RESUME, FINAL,
    )  # fmt: skip
    combine_gradient(
        split_v_ptr, part_in_v_ptr, part_out_v_ptr, dv_ptr, stride_dvb, stride_dvh, at, row, bh, n, dims, splits, heads,
        1.0, stride_dvn, V_HEAD_DIM, BLOCK_M, BLOCK_D, RESUME, FINAL,
    )  # fmt: skip


@triton.jit
def in_list_of(position, pointer, size, stride):
    """Is each position in an ascending list?"""
    found = position < position
    for i in range(0, size):
        found |= position == tl.load(pointer + i * stride)
    return found


@triton.jit
def request_of_tile(
    cu_seqlens_ptr,
    kv_lens_ptr,
    tile,
    batch_size,
    q_len,
    POSITIONS: tl.constexpr,
    BATCH: tl.constexpr,
    RAGGED: tl.constexpr,
    SHARED: tl.constexpr,
):
    """Whose rows a tile has; with SHARED, all requests' are those of the first.

    Returns:
        b, place: The request, and its first row in the tile.
        first: Where its rows begin in q.
        q_len, kv_len: Rows and keys of it; no rows where there are no keys, or no such request.
    """
    if SHARED:
        first = tl.full((), 0, tl.int32)
        return first, tile * POSITIONS, first, q_len, first
    if RAGGED:
        # tiles of a request begin where its rows do, one more for each request before it
        numbers = tl.arange(0, BATCH)
        starts = tl.load(cu_seqlens_ptr + numbers, mask=numbers < batch_size, other=NOWHERE)
        if POSITIONS > 1:
            starts = tl.where(numbers < batch_size, starts // POSITIONS + numbers, NOWHERE)
        b = tl.maximum(tl.sum(tl.where(starts <= tile, 1, 0), 0) - 1, 0)
        first = tl.load(cu_seqlens_ptr + b)
        q_len = tl.load(cu_seqlens_ptr + b + 1) - first
        begin = first
        if POSITIONS > 1:
            begin = first // POSITIONS + b
        place = (tile - begin) * POSITIONS
    else:
        each = (q_len + POSITIONS - 1) // POSITIONS
        b = tile // each
        place = tile % each * POSITIONS
        first = tl.full((), 0, tl.int32)
    kv_len = tl.load(kv_lens_ptr + b)
    return b, place, first, tl.where(kv_len > 0, q_len, 0), kv_len


@triton.jit
def share_of(tiles, done, split, tiles_each):
    """The part [begin, end) of a loop's tiles that a split has, which takes tiles_each of all from the first one on."""
    begin = tl.minimum(tl.maximum(split * tiles_each - done, 0), tiles)
    return begin, tl.minimum(tl.maximum((split + 1) * tiles_each - done, 0), tiles)


@triton.jit
def table_of(table_ptr, table_starts_ptr, b, stride_table, room, PAGE_SIZE: tl.constexpr):
    """Where the pages of a request are listed, in a row of the table or from where a list of starts says; and its room.

    room: Keys that a request may have, at most; less where its list is shorter.
    """
    if PAGE_SIZE > 0:
        if stride_table < 0:
            start = tl.load(table_starts_ptr + b)
            table_ptr += start
            room = tl.minimum(room, (tl.load(table_starts_ptr + b + 1) - start) * PAGE_SIZE)
        else:
            table_ptr += b.to(tl.int64) * stride_table
    return table_ptr, room


@triton.jit
def aligned_tiles_of(lo, hi, cursor, BLOCK_N: tl.constexpr):
    """tiles_of whose tiles begin at multiples of BLOCK_N, so that a page whose size is one holds whole tiles.

    Keys before lo are masked as those behind hi are.
    """
    return tiles_of(lo & -BLOCK_N, hi, cursor, BLOCK_N)


@triton.jit
def block_of(position, wanted, b, table_ptr, blocks, PAGE_SIZE: tl.constexpr):
    """The block that holds a tile of keys from a position on, its first key, and which of those wanted are there."""
    if PAGE_SIZE > 0:
        page = position // PAGE_SIZE
        some = tl.max(tl.where(wanted, 1, 0), 0) > 0  # a number that a list gives may be past the table
        block, first = tl.load(table_ptr + page, mask=some, other=-1), page * PAGE_SIZE
        there = wanted & (block >= 0) & (block < blocks)
    else:
        block, first, there = b, position * 0, wanted
    return block.to(tl.int64), first, there


@triton.jit
def spoiled(acc, kept):
    """Has a row that is kept inf or NaN?"""
    return tl.max(tl.where(kept & (nonfinite(acc) != 0), 1, 0), 0) > 0


@triton.jit
def places_in_cache(
    positions,
    wanted,
    b,
    table_ptr,
    kept_ptr,
    ring_slots,
    ring_base,
    blocks,
    PAGE_SIZE: tl.constexpr,
    KEPT: tl.constexpr,
):
    """Where a cache holds keys of a request, those that are wanted: block and slot in 64 bits, and which are there.

    A page is a block, else a request is; a page that is none of the `blocks` has been dropped. KEPT: of a ring, how
    many progressions of keys have slots for ever; -1 where each position has one.
    """
    there, slot = wanted, positions
    if PAGE_SIZE > 0:
        block = tl.load(table_ptr + positions // PAGE_SIZE, mask=wanted, other=0)
        slot = positions % PAGE_SIZE
        there = wanted & (block >= 0) & (block < blocks)
    else:
        block = b
    if KEPT >= 0:
        slot = ring_base + positions % ring_slots
        for i in tl.static_range(KEPT):
            piece = kept_ptr + (KEPT - 1 - i) * 5
            step, first, count = tl.load(piece), tl.load(piece + 2), tl.load(piece + 3)
            number = (positions - first) // step
            held = (positions >= first) & (number * step == positions - first) & (number < count)
            slot = tl.where(held, tl.load(piece + 4) + number, slot)
    return block.to(tl.int64), slot.to(tl.int64), there


@triton.jit
def head_rows(pointer, b, stride_b, heads, stride_h, rows, stride_m, dims):
    """Pointers to rows, each of a head of its own."""
    row = pointer + b.to(tl.int64) * stride_b + heads.to(tl.int64) * stride_h + rows * stride_m
    return row[:, None] + dims[None, :]


@triton.jit
def is_last(arrived_ptr, count):
    """Has this program come last of so many? What the others stored before is then seen by it, and nobody has come."""
    tl.debug_barrier()  # each thread has stored its share
    arrived = tl.atomic_add(arrived_ptr, 1, sem="acq_rel")
    last = arrived == count - 1
    if last:
        tl.store(arrived_ptr, 0)
    return last


@triton.jit
def load_shares(part_ptr, part_lse_ptr, row, there, dims, WIDTH: tl.constexpr):
    """What splits left of a row; other processors stored it, so it is in no cache but the one that all share."""
    lse = tl.load(part_lse_ptr + row, mask=there, other=float("-inf"), cache_modifier=".cg")
    part_ptrs = part_ptr + row[:, None] * WIDTH + dims[None, :]
    kept = there[:, None] & (dims < WIDTH)[None, :]
    return tl.load(part_ptrs, mask=kept, other=0.0, cache_modifier=".cg"), lse


@triton.jit
def load_shared(shared_ptr, shared_lse_ptr, row, there, dims, WIDTH: tl.constexpr):
    """What the launch over keys that requests share has left of rows: numbers, and their lse in base 2."""
    shared = tl.load(
        shared_ptr + row[:, None] * WIDTH + dims[None, :], mask=there[:, None] & (dims < WIDTH)[None, :], other=0.0
    )
    return shared, tl.load(shared_lse_ptr + row, mask=there, other=float("-inf")) * LOG2_E


@triton.jit
def combine_shares(
    part_ptr, part_lse_ptr, at, count, sinks_ptr, out_ptr, stride_ob, stride_oh, stride_om, lse_ptr, stride_lb,
    stride_lh, stride_lm, shared_ptr, shared_lse_ptr, num_q_heads, b, h, first, rows, dims, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, GROUP: tl.constexpr, SPLITS: tl.constexpr, HAS_SINKS: tl.constexpr, HAS_LSE: tl.constexpr,
    HAS_SHARED: tl.constexpr,
):  # fmt: skip
    """Stores what the shares of a tile's keys come to: those of `count` splits, from number `at` on, added alike."""
    split = tl.arange(0, SPLITS)
    row = (at + split) * ROWS
    part, lse = load_shares(part_ptr, part_lse_ptr, row, split < count, dims, WIDTH)
    for i in tl.range(0, rows, num_stages=1):
        # the next row is on its way while this one is added
        there = split < tl.where(i + 1 < rows, count, 0)
        following, following_lse = load_shares(part_ptr, part_lse_ptr, row + i + 1, there, dims, WIDTH)
        head, token = h + i % GROUP, (first + i // GROUP).to(tl.int64)
        sink = float("-inf")
        if HAS_SINKS:
            sink = tl.load(sinks_ptr + head) * LOG2_E
        m = tl.maximum(tl.max(lse, 0), sink)
        if HAS_SHARED:
            shared_row = (b * num_q_heads + head).to(tl.int64)
            shared_lse = tl.load(shared_lse_ptr + shared_row) * LOG2_E
            shared = tl.load(shared_ptr + shared_row * WIDTH + dims, mask=dims < WIDTH, other=0.0)
            m = tl.maximum(m, shared_lse)
        m = tl.where(m == float("-inf"), 0.0, m)
        weights = tl.exp2(lse - m)
        total = tl.sum(weights, 0) + tl.exp2(sink - m)
        out = tl.sum(part * weights[:, None], 0)
        if HAS_SHARED:
            out += shared * tl.exp2(shared_lse - m)
            total += tl.exp2(shared_lse - m)
        out = out / tl.where(total == 0.0, 1.0, total)
        out_row = head_of(out_ptr, b, stride_ob, head, stride_oh) + token * stride_om
        tl.store(out_row + dims, out.to(out_ptr.dtype.element_ty), mask=dims < WIDTH)
        if HAS_LSE:
            lse_at = head_of(lse_ptr, b, stride_lb, head, stride_lh) + token * stride_lm
            tl.store(lse_at, (m + tl.log2(total)) * LN_2)
        part, lse = following, following_lse
