# Written by spattn: edits are lost, the templates are in codegen_templates/triton.
#
#   pattern  strided(128) & causal | last(64)
#   means    (((q - k) % 128) == 0 and k <= q) or (k <= q and q <= k + 63)
#   layout   pass 0: all queries
#              walk keys k = v
#                [u0 - 63 .. u1], full [u1 - 63 .. u0]
#                partial tiles masked by the row's own range
#            pass 1: queries q = 128*u + c, for each residue c of 128
#              walk keys k = 128*v + c
#                [begin .. u1 - 1], full [begin .. u0 - 1]
#                partial tiles masked by the row's own range
import triton
import triton.language as tl

from spattn.kernels.triton import (
    NOWHERE, SCANNED, add_part, below, careful_softmax, columns_due, head_of, is_marked, load_part, load_request,
    load_rows, load_tile, marks, normalised, online_softmax, places_from, row_scale, rows_from, share, store_part,
    store_rows, tile_number, tiles_of,
)


@triton.jit
def pass_0_loop_0(
    acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
    u, u0, u1, k_offset, num_keys,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, CAREFUL: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Attends to keys k = v."""
    last = k_offset + num_keys - 1
    lo_0 = tl.maximum(u0 - 63, k_offset)
    hi_0 = tl.minimum(u1, last)
    full_lo_0 = u1 - 63
    full_hi_0 = u0
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_lo = u - 63
    row_hi = tl.minimum(u, last)
    end = tiles_0
    # nothing for a tile without rows
    end = tl.where(u0 <= u1, end, 0)
    # tiles before the first full one, full ones
    before = tl.minimum(tl.maximum(full_lo_0 - lo_0 + BLOCK_N - 1, 0) // BLOCK_N, end)
    full = tl.maximum(tl.minimum(tl.maximum(full_hi_0 - lo_0 + BLOCK_N, 0) // BLOCK_N, end) - before, 0)
    LOOPS: tl.constexpr = 2 if APART else 1
    for stretch in tl.static_range(LOOPS):
        stop = end
        if APART:
            stop = full if stretch else end - full
        begin = 0
        if SPLIT:
            begin, stop = share(stop, split, splits)
        for number in range(begin, stop):
            i = tile_number(number, before, full, stretch, APART)
            due = lo_0 + i * BLOCK_N
            start, v, inside, loaded = columns_due(due, last, BLOCK_N, FITS, APART and stretch)
            k_base = start
            k_base, along = places_from(k_base, 1, BLOCK_N, WIDE)
            k_ptrs = k_head + k_base * stride_kn + ((along * stride_kn)[None, :] + dims[:, None])
            v_ptrs = v_head + k_base * stride_vn + ((along * stride_vn)[:, None] + v_dims[None, :])
            k = load_tile(k_ptrs, loaded[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D)
            scores = tl.dot(q, k, input_precision=PRECISION)
            allowed = tl.broadcast_to(inside[None, :], scores.shape)
            partial = (due < full_lo_0) | (due > full_hi_0)
            if APART:
                partial = stretch == 0
            if partial:
                row_from = tl.maximum(row_lo, due)
                row_left = tl.maximum(row_hi - row_from + 1, 0)
                row_from, row_left = tl.broadcast_to(row_from, u.shape), tl.broadcast_to(row_left, u.shape)
                allowed = tl.broadcast_to(below(v[None, :] - row_from[:, None], row_left[:, None]), scores.shape)
                scores = tl.where(allowed, scores, float("-inf"))
            values = load_tile(v_ptrs, loaded[:, None], (v_dims < V_HEAD_DIM)[None, :], V_HEAD_DIM != BLOCK_DV)
            if CAREFUL:
                acc, m_i, l_i = careful_softmax(scores, allowed, values, acc, m_i, l_i, qk_scale, PRECISION)
            else:
                acc, m_i, l_i = online_softmax(scores, values, acc, m_i, l_i, qk_scale, PRECISION)
    return acc, m_i, l_i


@triton.jit
def pass_0_tile(
    place, pair,
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, part_out_ptr, part_out_lse_ptr,
    part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
    splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
    CAREFUL: tl.constexpr,
):
    """One tile of pass_0, or a split of it."""
    program = pair * (tiles * splits) + place
    tile = place
    split = 0
    if SPLIT:
        tile = place // splits
        split = place % splits
    tile = tiles - 1 - tile
    if PAIRED:
        pair = tl.load(pairs_ptr + pair)
    b = pair // num_q_heads
    h = pair % num_q_heads
    if WHOLE:
        k_offset = 0
        num_keys = kv_len
    lies = b
    q_rows = q_len
    q_shift = q_offset
    k_shift = k_offset
    if REQUESTS:
        q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, lies = load_request(requests_ptr, b)
        pair = lies * num_q_heads + h

    row_begin = q_offset
    row_end = q_len + q_offset
    start = row_begin + tile * BLOCK_M
    u, u0, u1, row_ok = rows_from(start, row_begin, row_end, BLOCK_M)
    q_pos = u

    if REQUESTS:
        # past the last row there is nothing to walk over
        num_keys = tl.where(u0 > u1, 0, num_keys)
    m = (q_pos - q_shift).to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    v_dims = tl.arange(0, BLOCK_DV)
    q = load_rows(head_of(q_ptr, lies, stride_qb, h, stride_qh), m, stride_qm, dims, row_ok, HEAD_DIM)
    k_head = head_of(k_ptr, lies, stride_kb, h // group_size, stride_kh) - k_shift.to(tl.int64) * stride_kn
    v_head = head_of(v_ptr, lies, stride_vb, h // group_size, stride_vh) - k_shift.to(tl.int64) * stride_vn

    row = pair.to(tl.int64) * q_rows + m
    m_i = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l_i = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    acc, m_i, l_i = pass_0_loop_0(
        acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
        u, u0, u1, k_offset, num_keys,
        HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, WIDE, FITS, SPLIT, APART, CAREFUL, REQUESTS,
    )

    acc, lse = normalised(acc, m_i, l_i)
    slot = tl.cast(program, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    if not CAREFUL:
        # 0 * inf, from a value that some row may not see: the careful launch repeats this tile
        lse += marks(acc)
    scale = row_scale(acc)
    if SPLIT:
        every = tl.full([BLOCK_M], True, tl.int1)
        store_part(part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, slot, every, v_dims, acc, lse, scale, V_HEAD_DIM)
    else:
        store_part(part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, row, row_ok, v_dims, acc, lse, scale, V_HEAD_DIM)
    if not CAREFUL:
        tl.store(marks_ptr + slot, lse)


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def pass_0(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, part_out_ptr, part_out_lse_ptr,
    part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
    splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """All queries."""
    arguments = (
        q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
        stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, part_out_ptr, part_out_lse_ptr,
        part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
        splits, programs, qk_scale,
    )
    pair = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    if pair * (tiles * splits) < programs:
        pass_0_tile(
            tl.program_id(0), pair, *arguments,
            stride_qm, stride_kn, stride_vn, stride_om, num_q_heads, group_size, HEAD_DIM, V_HEAD_DIM, BLOCK_D,
            BLOCK_DV,
            BLOCK_M, BLOCK_N, PAIRED, PRECISION, WIDE, FITS, SPLIT, APART, WHOLE, REQUESTS,
            False,
        )


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def pass_0_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, part_out_ptr, part_out_lse_ptr,
    part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
    splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Again the tiles of marked rows, few if any: a program looks through SCANNED tiles."""
    arguments = (
        q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
        stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, part_out_ptr, part_out_lse_ptr,
        part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
        splits, programs, qk_scale,
    )
    first = tl.program_id(0) * SCANNED
    stop = tl.minimum(first + SCANNED, programs)
    if is_marked(marks_ptr, first, stop, SCANNED, BLOCK_M):
        for program in range(first, stop):
            if is_marked(marks_ptr, program, program + 1, 1, BLOCK_M):
                pass_0_tile(
                    program % (tiles * splits), program // (tiles * splits), *arguments,
                    stride_qm, stride_kn, stride_vn, stride_om, num_q_heads, group_size, HEAD_DIM, V_HEAD_DIM, BLOCK_D,
                    BLOCK_DV,
                    BLOCK_M, BLOCK_N, PAIRED, PRECISION, WIDE, FITS, SPLIT, APART, WHOLE, REQUESTS,
                    True,
                )


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def pass_0_combine(
    split_ptr, split_lse_ptr, split_scale_ptr, q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr,
    stride_vb, stride_vh, out_ptr, stride_ob, stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr,
    part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """The splits of a tile of pass_0 as one result, always in the same order: BLOCK_D dimensions of it."""
    chunks: tl.constexpr = ((V_HEAD_DIM if V_HEAD_DIM > HEAD_DIM else HEAD_DIM) + BLOCK_D - 1) // BLOCK_D
    at = tl.program_id(0) // chunks
    pair = at // tiles
    tile = at % tiles
    first_dim = tl.program_id(0) % chunks * BLOCK_D
    tile = tiles - 1 - tile
    if PAIRED:
        pair = tl.load(pairs_ptr + pair)
    b = pair // num_q_heads
    h = pair % num_q_heads
    if WHOLE:
        k_offset = 0
        num_keys = kv_len
    lies = b
    q_rows = q_len
    q_shift = q_offset
    k_shift = k_offset
    if REQUESTS:
        q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, lies = load_request(requests_ptr, b)
        pair = lies * num_q_heads + h

    row_begin = q_offset
    row_end = q_len + q_offset
    start = row_begin + tile * BLOCK_M
    u, u0, u1, row_ok = rows_from(start, row_begin, row_end, BLOCK_M)
    q_pos = u

    m = (q_pos - q_shift).to(tl.int64)
    v_dims = first_dim + tl.arange(0, BLOCK_DV)
    row = pair.to(tl.int64) * q_rows + m
    m_i = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l_i = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    # of all dimensions, though a program has some: a mean of parts is no greater than they are
    scale = tl.zeros([BLOCK_M], tl.float32)
    every = tl.full([BLOCK_M], True, tl.int1)
    for split in tl.range(0, splits, num_stages=4):
        slot = (at * splits + split) * BLOCK_M + tl.arange(0, BLOCK_M).to(tl.int64)
        part, part_lse = load_part(split_ptr, split_lse_ptr, split_scale_ptr, slot, every, v_dims, V_HEAD_DIM)
        scale = tl.maximum(scale, tl.load(split_scale_ptr + slot))
        acc, m_i, l_i = add_part(acc, m_i, l_i, part, part_lse)

    acc, lse = normalised(acc, m_i, l_i)
    store_part(part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, row, row_ok, v_dims, acc, lse, scale, V_HEAD_DIM)


@triton.jit
def pass_1_loop_0(
    acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
    u, u0, u1, c, k_offset, num_keys,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, CAREFUL: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Attends to keys k = 128*v + c."""
    last = ((k_offset + num_keys - c + 127) >> 7) - 1
    lo_0 = (k_offset - c + 127) >> 7
    hi_0 = tl.minimum(u1 - 1, last)
    full_lo_0 = (k_offset - c + 127) >> 7
    full_hi_0 = u0 - 1
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_hi = tl.minimum(u - 1, last)
    end = tiles_0
    # nothing for a tile without rows
    end = tl.where(u0 <= u1, end, 0)
    # tiles before the first full one, full ones
    before = tl.minimum(tl.maximum(full_lo_0 - lo_0 + BLOCK_N - 1, 0) // BLOCK_N, end)
    full = tl.maximum(tl.minimum(tl.maximum(full_hi_0 - lo_0 + BLOCK_N, 0) // BLOCK_N, end) - before, 0)
    LOOPS: tl.constexpr = 2 if APART else 1
    for stretch in tl.static_range(LOOPS):
        stop = end
        if APART:
            stop = full if stretch else end - full
        begin = 0
        if SPLIT:
            begin, stop = share(stop, split, splits)
        for number in range(begin, stop):
            i = tile_number(number, before, full, stretch, APART)
            due = lo_0 + i * BLOCK_N
            start, v, inside, loaded = columns_due(due, last, BLOCK_N, FITS, APART and stretch)
            k_base = (c + 128 * start)
            k_base, along = places_from(k_base, 128, BLOCK_N, WIDE)
            k_ptrs = k_head + k_base * stride_kn + ((along * stride_kn)[None, :] + dims[:, None])
            v_ptrs = v_head + k_base * stride_vn + ((along * stride_vn)[:, None] + v_dims[None, :])
            k = load_tile(k_ptrs, loaded[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D)
            scores = tl.dot(q, k, input_precision=PRECISION)
            allowed = tl.broadcast_to(inside[None, :], scores.shape)
            partial = (due < full_lo_0) | (due > full_hi_0)
            if APART:
                partial = stretch == 0
            if partial:
                row_from = tl.full(row_hi.shape, due, tl.int32)
                row_left = tl.maximum(row_hi - row_from + 1, 0)
                row_from, row_left = tl.broadcast_to(row_from, u.shape), tl.broadcast_to(row_left, u.shape)
                allowed = tl.broadcast_to(below(v[None, :] - row_from[:, None], row_left[:, None]), scores.shape)
                scores = tl.where(allowed, scores, float("-inf"))
            values = load_tile(v_ptrs, loaded[:, None], (v_dims < V_HEAD_DIM)[None, :], V_HEAD_DIM != BLOCK_DV)
            if CAREFUL:
                acc, m_i, l_i = careful_softmax(scores, allowed, values, acc, m_i, l_i, qk_scale, PRECISION)
            else:
                acc, m_i, l_i = online_softmax(scores, values, acc, m_i, l_i, qk_scale, PRECISION)
    return acc, m_i, l_i


@triton.jit
def pass_1_tile(
    place, pair,
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, part_out_ptr, part_out_lse_ptr,
    part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
    splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
    CAREFUL: tl.constexpr,
):
    """One tile of pass_1, or a split of it."""
    program = pair * (tiles * splits) + place
    tile = place
    split = 0
    if SPLIT:
        tile = place // splits
        split = place % splits
    tile = tiles - 1 - tile
    if PAIRED:
        pair = tl.load(pairs_ptr + pair)
    b = pair // num_q_heads
    h = pair % num_q_heads
    if WHOLE:
        k_offset = 0
        num_keys = kv_len
    lies = b
    q_rows = q_len
    q_shift = q_offset
    k_shift = k_offset
    if REQUESTS:
        q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, lies = load_request(requests_ptr, b)
        pair = lies * num_q_heads + h

    c = tile % 128
    tile = tile // 128
    row_begin = (q_offset - c + 127) >> 7
    row_end = (q_len + q_offset - c + 127) >> 7
    start = row_begin + tile * BLOCK_M
    u, u0, u1, row_ok = rows_from(start, row_begin, row_end, BLOCK_M)
    q_pos = c + 128 * u

    if REQUESTS:
        # past the last row there is nothing to walk over
        num_keys = tl.where(u0 > u1, 0, num_keys)
    m = (q_pos - q_shift).to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    v_dims = tl.arange(0, BLOCK_DV)
    q = load_rows(head_of(q_ptr, lies, stride_qb, h, stride_qh), m, stride_qm, dims, row_ok, HEAD_DIM)
    k_head = head_of(k_ptr, lies, stride_kb, h // group_size, stride_kh) - k_shift.to(tl.int64) * stride_kn
    v_head = head_of(v_ptr, lies, stride_vb, h // group_size, stride_vh) - k_shift.to(tl.int64) * stride_vn

    row = pair.to(tl.int64) * q_rows + m
    if SPLIT:
        m_i = tl.full([BLOCK_M], float("-inf"), tl.float32)
        l_i = tl.zeros([BLOCK_M], tl.float32)
        acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    else:
        begun = row_ok
        acc, m_i = load_part(part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, row, begun, v_dims, V_HEAD_DIM)
        l_i = tl.where(m_i == float("-inf"), 0.0, 1.0)
    acc, m_i, l_i = pass_1_loop_0(
        acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
        u, u0, u1, c, k_offset, num_keys,
        HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, WIDE, FITS, SPLIT, APART, CAREFUL, REQUESTS,
    )

    acc, lse = normalised(acc, m_i, l_i)
    slot = tl.cast(program, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    if not CAREFUL:
        # 0 * inf, from a value that some row may not see: the careful launch repeats this tile
        lse += marks(acc)
    scale = row_scale(acc)
    if SPLIT:
        every = tl.full([BLOCK_M], True, tl.int1)
        store_part(part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, slot, every, v_dims, acc, lse, scale, V_HEAD_DIM)
    else:
        store_rows(head_of(out_ptr, lies, stride_ob, h, stride_oh), m, stride_om, v_dims, row_ok, acc, V_HEAD_DIM)
        lse *= 0.6931471805599453
        tl.store(lse_ptr + row, lse, mask=row_ok)
    if not CAREFUL:
        tl.store(marks_ptr + slot, lse)


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def pass_1(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, part_out_ptr, part_out_lse_ptr,
    part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
    splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Queries q = 128*u + c, for each residue c of 128."""
    arguments = (
        q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
        stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, part_out_ptr, part_out_lse_ptr,
        part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
        splits, programs, qk_scale,
    )
    # the last pairs first: the launch before left these in the cache
    pair = tl.program_id(2) * tl.num_programs(1) + tl.num_programs(1) - 1 - tl.program_id(1)
    if pair * (tiles * splits) < programs:
        pass_1_tile(
            tl.program_id(0), pair, *arguments,
            stride_qm, stride_kn, stride_vn, stride_om, num_q_heads, group_size, HEAD_DIM, V_HEAD_DIM, BLOCK_D,
            BLOCK_DV,
            BLOCK_M, BLOCK_N, PAIRED, PRECISION, WIDE, FITS, SPLIT, APART, WHOLE, REQUESTS,
            False,
        )


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def pass_1_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, part_out_ptr, part_out_lse_ptr,
    part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
    splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Again the tiles of marked rows, few if any: a program looks through SCANNED tiles."""
    arguments = (
        q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
        stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, part_out_ptr, part_out_lse_ptr,
        part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
        splits, programs, qk_scale,
    )
    first = tl.program_id(0) * SCANNED
    stop = tl.minimum(first + SCANNED, programs)
    if is_marked(marks_ptr, first, stop, SCANNED, BLOCK_M):
        for program in range(first, stop):
            if is_marked(marks_ptr, program, program + 1, 1, BLOCK_M):
                pass_1_tile(
                    program % (tiles * splits), program // (tiles * splits), *arguments,
                    stride_qm, stride_kn, stride_vn, stride_om, num_q_heads, group_size, HEAD_DIM, V_HEAD_DIM, BLOCK_D,
                    BLOCK_DV,
                    BLOCK_M, BLOCK_N, PAIRED, PRECISION, WIDE, FITS, SPLIT, APART, WHOLE, REQUESTS,
                    True,
                )


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def pass_1_combine(
    split_ptr, split_lse_ptr, split_scale_ptr, q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr,
    stride_vb, stride_vh, out_ptr, stride_ob, stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr,
    part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """The splits of a tile of pass_1 as one result, always in the same order: BLOCK_D dimensions of it."""
    chunks: tl.constexpr = ((V_HEAD_DIM if V_HEAD_DIM > HEAD_DIM else HEAD_DIM) + BLOCK_D - 1) // BLOCK_D
    at = tl.program_id(0) // chunks
    pair = at // tiles
    tile = at % tiles
    first_dim = tl.program_id(0) % chunks * BLOCK_D
    tile = tiles - 1 - tile
    if PAIRED:
        pair = tl.load(pairs_ptr + pair)
    b = pair // num_q_heads
    h = pair % num_q_heads
    if WHOLE:
        k_offset = 0
        num_keys = kv_len
    lies = b
    q_rows = q_len
    q_shift = q_offset
    k_shift = k_offset
    if REQUESTS:
        q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, lies = load_request(requests_ptr, b)
        pair = lies * num_q_heads + h

    c = tile % 128
    tile = tile // 128
    row_begin = (q_offset - c + 127) >> 7
    row_end = (q_len + q_offset - c + 127) >> 7
    start = row_begin + tile * BLOCK_M
    u, u0, u1, row_ok = rows_from(start, row_begin, row_end, BLOCK_M)
    q_pos = c + 128 * u

    m = (q_pos - q_shift).to(tl.int64)
    v_dims = first_dim + tl.arange(0, BLOCK_DV)
    row = pair.to(tl.int64) * q_rows + m
    begun = row_ok
    acc, m_i = load_part(part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, row, begun, v_dims, V_HEAD_DIM)
    l_i = tl.where(m_i == float("-inf"), 0.0, 1.0)
    every = tl.full([BLOCK_M], True, tl.int1)
    for split in tl.range(0, splits, num_stages=4):
        slot = (at * splits + split) * BLOCK_M + tl.arange(0, BLOCK_M).to(tl.int64)
        part, part_lse = load_part(split_ptr, split_lse_ptr, split_scale_ptr, slot, every, v_dims, V_HEAD_DIM)
        acc, m_i, l_i = add_part(acc, m_i, l_i, part, part_lse)

    acc, lse = normalised(acc, m_i, l_i)
    store_rows(head_of(out_ptr, lies, stride_ob, h, stride_oh), m, stride_om, v_dims, row_ok, acc, V_HEAD_DIM)
    lse *= 0.6931471805599453
    tl.store(lse_ptr + row, lse, mask=row_ok)
