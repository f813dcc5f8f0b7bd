#
#   pattern  columns([::512]) & causal | last(256)
#   means    (0 <= k and (k % 512) == 0 and k <= q) or (k <= q and q <= k + 255)
#   layout   dq_pass 0: all queries
#              walk keys k = v
#                [u0 - 255 .. u1], full [u1 - 255 .. u0]
#                partial tiles masked by the row's own range
#              walk keys k = 512*v
#                [begin .. ((u1 + 256) // 512) - 1], full [begin .. ((u0 + 256) // 512) - 1]
#                partial tiles masked by the row's own range
#            dkdv_pass 0: keys k = 512*u, which it owns
#              walk queries q = v
#                [512*u0 .. last], full [512*u1 .. last]
#                partial tiles masked by the row's own range
#            dkdv_pass 1: all keys, less rows where (k % 512) == 0
#              walk queries q = v
#                [u0 .. u1 + 255], full [u1 .. u0 + 255]
#                partial tiles masked by the row's own range
import triton
import triton.language as tl

from spattn.kernels.triton import (
    NOWHERE, SCANNED, below, careful_product, columns_due, head_of, is_marked, load_request, load_rows, load_terms,
    load_tile, marks, places_from, rows_from, share, store_rows, store_terms, tile_number, tiles_of,
)


@triton.jit
def dq_pass_0_loop_0(
    dq, q, do, lse2, delta, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
    u, u0, u1, k_offset, num_keys,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, CAREFUL: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Adds to dq what comes of keys k = v, then keys k = 512*v."""
    last = k_offset + num_keys - 1
    lo_0 = tl.maximum(u0 - 255, k_offset)
    hi_0 = tl.minimum(u1, last)
    full_lo_0 = u1 - 255
    full_hi_0 = u0
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_lo = u - 255
    row_hi = tl.minimum(u, last)
    last_1 = ((k_offset + num_keys + 511) >> 9) - 1
    lo_1 = (k_offset + 511) >> 9
    hi_1 = tl.minimum(((u1 + 256) >> 9) - 1, last_1)
    full_lo_1 = (k_offset + 511) >> 9
    full_hi_1 = ((u0 + 256) >> 9) - 1
    lo_1, tiles_1, cursor = tiles_of(lo_1, hi_1, -NOWHERE, BLOCK_N)
    full_hi_1 = tl.minimum(full_hi_1, hi_1) - BLOCK_N + 1
    row_hi_1 = tl.minimum(((u + 256) >> 9) - 1, last_1)
    before_1 = tiles_0
    end = before_1 + tiles_1
    # nothing for a tile without rows
    end = tl.where(u0 <= u1, end, 0)
    stop = end
    begin = 0
    if SPLIT:
        begin, stop = share(stop, split, splits)
    for number in range(begin, stop):
        i = number
        due = lo_0 + i * BLOCK_N
        full_lo = full_lo_0
        full_hi = full_hi_0
        due = tl.where(i < before_1, due, lo_1 + (i - before_1) * BLOCK_N)
        full_lo = tl.where(i < before_1, full_lo, full_lo_1)
        full_hi = tl.where(i < before_1, full_hi, full_hi_1)
        last_now = last
        last_now = tl.where(i < before_1, last_now, last_1)
        start, v, inside, loaded = columns_due(due, last_now, BLOCK_N, FITS, False)
        k_base = start
        k_base = tl.where(i < before_1, k_base, (512 * start))
        step = 1
        step = tl.where(i < before_1, step, 512)
        along = tl.arange(0, BLOCK_N) * step
        k_base = k_base.to(tl.int64)
        if WIDE:
            along = along.to(tl.int64)
        k_ptrs = k_head + k_base * stride_kn + ((along * stride_kn)[None, :] + dims[:, None])
        v_ptrs = v_head + k_base * stride_vn + ((along * stride_vn)[None, :] + v_dims[:, None])
        k = load_tile(k_ptrs, loaded[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D)
        p = tl.exp2(tl.dot(q, k, input_precision=PRECISION) * qk_scale - lse2[:, None])
        allowed = tl.broadcast_to(inside[None, :], p.shape)
        if (due < full_lo) | (due > full_hi):
            if i < before_1:
                row_from = tl.maximum(row_lo, due)
                row_left = tl.maximum(row_hi - row_from + 1, 0)
                row_from, row_left = tl.broadcast_to(row_from, u.shape), tl.broadcast_to(row_left, u.shape)
            else:
                row_from = tl.full(row_hi_1.shape, due, tl.int32)
                row_left = tl.maximum(row_hi_1 - row_from + 1, 0)
                row_from, row_left = tl.broadcast_to(row_from, u.shape), tl.broadcast_to(row_left, u.shape)
            allowed = tl.broadcast_to(below(v[None, :] - row_from[:, None], row_left[:, None]), p.shape)
            p = tl.where(allowed, p, 0.0)
        values = load_tile(v_ptrs, loaded[None, :], (v_dims < V_HEAD_DIM)[:, None], V_HEAD_DIM != BLOCK_DV)
        ds = p * (tl.dot(do, values, input_precision=PRECISION) - delta[:, None])
        if CAREFUL:
            ds = tl.where(allowed, ds, 0.0)
            dq = careful_product(ds, allowed, tl.trans(k), dq, PRECISION)
        else:
            dq = tl.dot(ds.to(k.dtype), tl.trans(k), dq, input_precision=PRECISION)
    return dq


@triton.jit
def dq_pass_0_tile(
    place, pair,
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, out_ptr, stride_ob, stride_oh, dlse_ptr, stride_dlseb, stride_dlseh, dq_ptr, stride_dqb, stride_dqh,
    lse_ptr, terms_ptr, part_in_ptr, part_out_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_om: tl.constexpr, stride_dlsem: tl.constexpr, stride_dqm: tl.constexpr, num_q_heads: tl.constexpr,
    group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr,
    PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr,
    WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
    CAREFUL: tl.constexpr,
):
    """One tile of dq_pass_0, or a split of it."""
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
    do = load_rows(head_of(do_ptr, lies, stride_dob, h, stride_doh), m, stride_dom, v_dims, row_ok, V_HEAD_DIM)
    k_head = head_of(k_ptr, lies, stride_kb, h // group_size, stride_kh) - k_shift.to(tl.int64) * stride_kn
    v_head = head_of(v_ptr, lies, stride_vb, h // group_size, stride_vh) - k_shift.to(tl.int64) * stride_vn

    row = pair.to(tl.int64) * q_rows + m
    out = load_rows(head_of(out_ptr, lies, stride_ob, h, stride_oh), m, stride_om, v_dims, row_ok, V_HEAD_DIM)
    dlse_base = head_of(dlse_ptr, lies, stride_dlseb, h, stride_dlseh)
    dlse = tl.load(dlse_base + m * stride_dlsem, mask=row_ok, other=0.0)
    lse = tl.load(lse_ptr + row, mask=row_ok, other=float("-inf"))
    # a row without keys weighs nothing
    empty = lse == float("-inf")
    lse2 = tl.where(empty, float("inf"), lse * 1.4426950408889634)
    delta = tl.where(empty, 0.0, tl.sum(out.to(tl.float32) * do.to(tl.float32), 1) - dlse)
    store_terms(terms_ptr, row, row_ok, lse2, delta)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dq = dq_pass_0_loop_0(
        dq, q, do, lse2, delta, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
        u, u0, u1, k_offset, num_keys,
        HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, WIDE, FITS, SPLIT, APART, CAREFUL, REQUESTS,
    )
    slot = tl.cast(program, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    if SPLIT:
        split_ptrs = part_out_ptr + slot[:, None] * HEAD_DIM + dims[None, :]
        tl.store(split_ptrs, dq, mask=(dims < HEAD_DIM)[None, :])
    else:
        # qk_scale is of base 2
        dq *= qk_scale * 0.6931471805599453
        dq_head = head_of(dq_ptr, lies, stride_dqb, h, stride_dqh)
        store_rows(dq_head, m, stride_dqm, dims, row_ok, dq, HEAD_DIM)
    if not CAREFUL:
        # 0 * inf, from a value that some row may not see: the careful launch repeats this tile
        tl.store(marks_ptr + slot, marks(dq))


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def dq_pass_0(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, out_ptr, stride_ob, stride_oh, dlse_ptr, stride_dlseb, stride_dlseh, dq_ptr, stride_dqb, stride_dqh,
    lse_ptr, terms_ptr, part_in_ptr, part_out_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_om: tl.constexpr, stride_dlsem: tl.constexpr, stride_dqm: tl.constexpr, num_q_heads: tl.constexpr,
    group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr,
    PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr,
    WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """All queries."""
    arguments = (
        q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
        stride_doh, out_ptr, stride_ob, stride_oh, dlse_ptr, stride_dlseb, stride_dlseh, dq_ptr, stride_dqb, stride_dqh,
        lse_ptr, terms_ptr, part_in_ptr, part_out_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
        k_offset, num_keys, tiles, splits, programs, qk_scale,
    )
    pair = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    if pair * (tiles * splits) < programs:
        dq_pass_0_tile(
            tl.program_id(0), pair, *arguments,
            stride_qm, stride_kn, stride_vn, stride_dom, stride_om, stride_dlsem, stride_dqm, num_q_heads, group_size,
            HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M, BLOCK_N, PAIRED, PRECISION, WIDE, FITS, SPLIT, APART,
            WHOLE,
            REQUESTS,
            False,
        )


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def dq_pass_0_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, out_ptr, stride_ob, stride_oh, dlse_ptr, stride_dlseb, stride_dlseh, dq_ptr, stride_dqb, stride_dqh,
    lse_ptr, terms_ptr, part_in_ptr, part_out_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_om: tl.constexpr, stride_dlsem: tl.constexpr, stride_dqm: tl.constexpr, num_q_heads: tl.constexpr,
    group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr,
    PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr,
    WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Again the tiles of marked rows, few if any: a program looks through SCANNED tiles."""
    arguments = (
        q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
        stride_doh, out_ptr, stride_ob, stride_oh, dlse_ptr, stride_dlseb, stride_dlseh, dq_ptr, stride_dqb, stride_dqh,
        lse_ptr, terms_ptr, part_in_ptr, part_out_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
        k_offset, num_keys, tiles, splits, programs, qk_scale,
    )
    first = tl.program_id(0) * SCANNED
    stop = tl.minimum(first + SCANNED, programs)
    if is_marked(marks_ptr, first, stop, SCANNED, BLOCK_M):
        for program in range(first, stop):
            if is_marked(marks_ptr, program, program + 1, 1, BLOCK_M):
                dq_pass_0_tile(
                    program % (tiles * splits), program // (tiles * splits), *arguments,
                    stride_qm, stride_kn, stride_vn, stride_dom, stride_om, stride_dlsem, stride_dqm, num_q_heads,
                    group_size,
                    HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M, BLOCK_N, PAIRED, PRECISION, WIDE, FITS, SPLIT,
                    APART, WHOLE,
                    REQUESTS,
                    True,
                )


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def dq_pass_0_combine(
    split_ptr, q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr,
    stride_dob, stride_doh, out_ptr, stride_ob, stride_oh, dlse_ptr, stride_dlseb, stride_dlseh, dq_ptr, stride_dqb,
    stride_dqh, lse_ptr, terms_ptr, part_in_ptr, part_out_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len,
    q_offset, k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_om: tl.constexpr, stride_dlsem: tl.constexpr, stride_dqm: tl.constexpr, num_q_heads: tl.constexpr,
    group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr,
    PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr,
    WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """The splits of a tile of dq_pass_0 as one result, always in the same order: BLOCK_D dimensions of it."""
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
    dims = first_dim + tl.arange(0, BLOCK_D)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for split in tl.range(0, splits, num_stages=4):
        slot = (at * splits + split) * BLOCK_M + tl.arange(0, BLOCK_M).to(tl.int64)
        split_ptrs = split_ptr + slot[:, None] * HEAD_DIM + dims[None, :]
        dq += tl.load(split_ptrs, mask=(dims < HEAD_DIM)[None, :], other=0.0)

    # qk_scale is of base 2
    dq *= qk_scale * 0.6931471805599453
    dq_head = head_of(dq_ptr, lies, stride_dqb, h, stride_dqh)
    store_rows(dq_head, m, stride_dqm, dims, row_ok, dq, HEAD_DIM)


@triton.jit
def dkdv_pass_0_loop_0(
    dk, dv, k, values, q_head, stride_qm, do_head, stride_dom, terms_ptr, first_query,
    dims, v_dims, qk_scale, split, splits,
    u, u0, u1, q_len, q_offset,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, CAREFUL: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Adds to dk and dv what comes of queries q = v."""
    last = q_len + q_offset - 1
    lo_0 = tl.maximum(512 * u0, q_offset)
    hi_0 = last
    full_lo_0 = 512 * u1
    full_hi_0 = last
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_lo = 512 * u
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
        if begin < stop:
            for number in range(begin, stop):
                i = tile_number(number, before, full, stretch, APART)
                due = lo_0 + i * BLOCK_N
                start, v, inside, loaded = columns_due(due, last, BLOCK_N, FITS, APART and stretch)
                q_base = start
                q_base, along = places_from(q_base, 1, BLOCK_N, WIDE)
                q_ptrs = q_head + q_base * stride_qm + ((along * stride_qm)[None, :] + dims[:, None])
                do_ptrs = do_head + q_base * stride_dom + ((along * stride_dom)[:, None] + v_dims[None, :])
                q = load_tile(q_ptrs, loaded[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D)
                lse2, delta = load_terms(terms_ptr, first_query + q_base + along, loaded)
                p = tl.exp2(tl.dot(k, q, input_precision=PRECISION) * qk_scale - lse2[None, :])
                allowed = tl.broadcast_to(inside[None, :], p.shape)
                partial = (due < full_lo_0) | (due > full_hi_0)
                if APART:
                    partial = stretch == 0
                if partial:
                    row_from = tl.maximum(row_lo, due)
                    row_left = tl.maximum(last - row_from + 1, 0)
                    row_from, row_left = tl.broadcast_to(row_from, u.shape), tl.broadcast_to(row_left, u.shape)
                    allowed = tl.broadcast_to(below(v[None, :] - row_from[:, None], row_left[:, None]), p.shape)
                    p = tl.where(allowed, p, 0.0)
                do = load_tile(do_ptrs, loaded[:, None], (v_dims < V_HEAD_DIM)[None, :], V_HEAD_DIM != BLOCK_DV)
                # dv before ds: while its product runs, ds waits for another one
                if CAREFUL:
                    dv = careful_product(p, allowed, do, dv, PRECISION)
                else:
                    dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
                ds = p * (tl.dot(values, tl.trans(do), input_precision=PRECISION) - delta[None, :])
                if CAREFUL:
                    dk = careful_product(tl.where(allowed, ds, 0.0), allowed, tl.trans(q), dk, PRECISION)
                else:
                    dk = tl.dot(ds.to(q.dtype), tl.trans(q), dk, input_precision=PRECISION)
    return dk, dv


@triton.jit
def dkdv_pass_0_tile(
    place, pair,
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr, part_in_k_ptr,
    part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
    CAREFUL: tl.constexpr,
):
    """One tile of dkdv_pass_0, or a split of it."""
    program = pair * (tiles * splits) + place
    tile = place
    split = 0
    if SPLIT:
        tile = place // splits
        split = place % splits
    heads = group_size
    if PAIRED:
        # of each pair of batch entry and key head: which it is, where its query heads are listed, and how many
        entry = pairs_ptr + 3 * pair
        pair = tl.load(entry)
        listed = tl.load(entry + 1)
        heads = tl.load(entry + 2)
    num_kv_heads = num_q_heads // group_size
    b = pair // num_kv_heads
    kv_head = pair % num_kv_heads
    if WHOLE:
        k_offset = 0
        num_keys = kv_len
    lies = b
    q_rows = q_len
    q_shift = q_offset
    k_shift = k_offset
    if REQUESTS:
        q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, lies = load_request(requests_ptr, b)
        pair = lies * num_kv_heads + kv_head

    row_begin = (k_offset + 511) >> 9
    row_end = (k_offset + num_keys + 511) >> 9
    start = row_begin + tile * BLOCK_M
    u, u0, u1, row_ok = rows_from(start, row_begin, row_end, BLOCK_M)
    k_pos = 512 * u

    if REQUESTS:
        # past the last row there is nothing to walk over
        q_len = tl.where(u0 > u1, 0, q_len)
    n = (k_pos - k_shift).to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    v_dims = tl.arange(0, BLOCK_DV)
    k = load_rows(head_of(k_ptr, lies, stride_kb, kv_head, stride_kh), n, stride_kn, dims, row_ok, HEAD_DIM)
    values = load_rows(head_of(v_ptr, lies, stride_vb, kv_head, stride_vh), n, stride_vn, v_dims, row_ok, V_HEAD_DIM)

    dk = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for member in range(0, heads):
        h = kv_head * group_size + member
        if PAIRED:
            h = tl.load(pairs_ptr + listed + member)
        q_head = head_of(q_ptr, lies, stride_qb, h, stride_qh) - q_shift.to(tl.int64) * stride_qm
        do_head = head_of(do_ptr, lies, stride_dob, h, stride_doh) - q_shift.to(tl.int64) * stride_dom
        first_query = (lies.to(tl.int64) * num_q_heads + h) * q_rows - q_shift
        dk, dv = dkdv_pass_0_loop_0(
            dk, dv, k, values, q_head, stride_qm, do_head, stride_dom, terms_ptr, first_query,
            dims, v_dims, qk_scale, split, splits,
            u, u0, u1, q_len, q_offset,
            HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, WIDE, FITS, SPLIT, APART, CAREFUL, REQUESTS,
        )
    slot = tl.cast(program, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    if SPLIT:
        split_k_ptrs = part_out_k_ptr + slot[:, None] * HEAD_DIM + dims[None, :]
        tl.store(split_k_ptrs, dk, mask=(dims < HEAD_DIM)[None, :])
        split_v_ptrs = part_out_v_ptr + slot[:, None] * V_HEAD_DIM + v_dims[None, :]
        tl.store(split_v_ptrs, dv, mask=(v_dims < V_HEAD_DIM)[None, :])
    else:
        # qk_scale is of base 2
        dk *= qk_scale * 0.6931471805599453
        dk_head = head_of(dk_ptr, lies, stride_dkb, kv_head, stride_dkh)
        store_rows(dk_head, n, stride_dkn, dims, row_ok, dk, HEAD_DIM)
        dv_head = head_of(dv_ptr, lies, stride_dvb, kv_head, stride_dvh)
        store_rows(dv_head, n, stride_dvn, v_dims, row_ok, dv, V_HEAD_DIM)
    if not CAREFUL:
        # 0 * inf, from a value that some row may not see: the careful launch repeats this tile
        tl.store(marks_ptr + slot, marks(dk) + marks(dv))


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def dkdv_pass_0(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr, part_in_k_ptr,
    part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Keys k = 512*u, which it owns."""
    arguments = (
        q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
        stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr, part_in_k_ptr,
        part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
        k_offset, num_keys, tiles, splits, programs, qk_scale,
    )
    # the last pairs first: the launch before left these in the cache
    pair = tl.program_id(2) * tl.num_programs(1) + tl.num_programs(1) - 1 - tl.program_id(1)
    if pair * (tiles * splits) < programs:
        dkdv_pass_0_tile(
            tl.program_id(0), pair, *arguments,
            stride_qm, stride_kn, stride_vn, stride_dom, stride_dkn, stride_dvn, num_q_heads, group_size, HEAD_DIM,
            V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M, BLOCK_N, PAIRED, PRECISION, WIDE, FITS, SPLIT, APART, WHOLE,
            REQUESTS,
            False,
        )


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def dkdv_pass_0_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr, part_in_k_ptr,
    part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Again the tiles of marked rows, few if any: a program looks through SCANNED tiles."""
    arguments = (
        q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
        stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr, part_in_k_ptr,
        part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
        k_offset, num_keys, tiles, splits, programs, qk_scale,
    )
    first = tl.program_id(0) * SCANNED
    stop = tl.minimum(first + SCANNED, programs)
    if is_marked(marks_ptr, first, stop, SCANNED, BLOCK_M):
        for program in range(first, stop):
            if is_marked(marks_ptr, program, program + 1, 1, BLOCK_M):
                dkdv_pass_0_tile(
                    program % (tiles * splits), program // (tiles * splits), *arguments,
                    stride_qm, stride_kn, stride_vn, stride_dom, stride_dkn, stride_dvn, num_q_heads, group_size,
                    HEAD_DIM,
                    V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M, BLOCK_N, PAIRED, PRECISION, WIDE, FITS, SPLIT, APART, WHOLE,
                    REQUESTS,
                    True,
                )


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def dkdv_pass_0_combine(
    split_k_ptr, split_v_ptr, q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh,
    do_ptr, stride_dob, stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr,
    part_in_k_ptr, part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len,
    q_offset, k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """The splits of a tile of dkdv_pass_0 as one result, always in the same order: BLOCK_D dimensions of it."""
    chunks: tl.constexpr = ((V_HEAD_DIM if V_HEAD_DIM > HEAD_DIM else HEAD_DIM) + BLOCK_D - 1) // BLOCK_D
    at = tl.program_id(0) // chunks
    pair = at // tiles
    tile = at % tiles
    first_dim = tl.program_id(0) % chunks * BLOCK_D
    if PAIRED:
        # of each pair of batch entry and key head: which it is, where its query heads are listed, and how many
        entry = pairs_ptr + 3 * pair
        pair = tl.load(entry)
    num_kv_heads = num_q_heads // group_size
    b = pair // num_kv_heads
    kv_head = pair % num_kv_heads
    if WHOLE:
        k_offset = 0
        num_keys = kv_len
    lies = b
    q_shift = q_offset
    k_shift = k_offset
    if REQUESTS:
        q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, lies = load_request(requests_ptr, b)
        pair = lies * num_kv_heads + kv_head

    row_begin = (k_offset + 511) >> 9
    row_end = (k_offset + num_keys + 511) >> 9
    start = row_begin + tile * BLOCK_M
    u, u0, u1, row_ok = rows_from(start, row_begin, row_end, BLOCK_M)
    k_pos = 512 * u

    n = (k_pos - k_shift).to(tl.int64)
    dims = first_dim + tl.arange(0, BLOCK_D)
    v_dims = first_dim + tl.arange(0, BLOCK_DV)
    dk = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for split in tl.range(0, splits, num_stages=4):
        slot = (at * splits + split) * BLOCK_M + tl.arange(0, BLOCK_M).to(tl.int64)
        split_k_ptrs = split_k_ptr + slot[:, None] * HEAD_DIM + dims[None, :]
        dk += tl.load(split_k_ptrs, mask=(dims < HEAD_DIM)[None, :], other=0.0)
        split_v_ptrs = split_v_ptr + slot[:, None] * V_HEAD_DIM + v_dims[None, :]
        dv += tl.load(split_v_ptrs, mask=(v_dims < V_HEAD_DIM)[None, :], other=0.0)

    # qk_scale is of base 2
    dk *= qk_scale * 0.6931471805599453
    dk_head = head_of(dk_ptr, lies, stride_dkb, kv_head, stride_dkh)
    store_rows(dk_head, n, stride_dkn, dims, row_ok, dk, HEAD_DIM)
    dv_head = head_of(dv_ptr, lies, stride_dvb, kv_head, stride_dvh)
    store_rows(dv_head, n, stride_dvn, v_dims, row_ok, dv, V_HEAD_DIM)


@triton.jit
def dkdv_pass_1_loop_0(
    dk, dv, k, values, q_head, stride_qm, do_head, stride_dom, terms_ptr, first_query,
    dims, v_dims, qk_scale, split, splits,
    u, u0, u1, q_len, q_offset,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, FITS: tl.constexpr, SPLIT: tl.constexpr,
    APART: tl.constexpr, CAREFUL: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Adds to dk and dv what comes of queries q = v."""
    last = q_len + q_offset - 1
    lo_0 = tl.maximum(u0, q_offset)
    hi_0 = tl.minimum(u1 + 255, last)
    full_lo_0 = u1
    full_hi_0 = u0 + 255
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_lo = u
    row_hi = tl.minimum(u + 255, last)
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
        if begin < stop:
            for number in range(begin, stop):
                i = tile_number(number, before, full, stretch, APART)
                due = lo_0 + i * BLOCK_N
                start, v, inside, loaded = columns_due(due, last, BLOCK_N, FITS, APART and stretch)
                q_base = start
                q_base, along = places_from(q_base, 1, BLOCK_N, WIDE)
                q_ptrs = q_head + q_base * stride_qm + ((along * stride_qm)[None, :] + dims[:, None])
                do_ptrs = do_head + q_base * stride_dom + ((along * stride_dom)[:, None] + v_dims[None, :])
                q = load_tile(q_ptrs, loaded[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D)
                lse2, delta = load_terms(terms_ptr, first_query + q_base + along, loaded)
                p = tl.exp2(tl.dot(k, q, input_precision=PRECISION) * qk_scale - lse2[None, :])
                allowed = tl.broadcast_to(inside[None, :], p.shape)
                partial = (due < full_lo_0) | (due > full_hi_0)
                if APART:
                    partial = stretch == 0
                if partial:
                    row_from = tl.maximum(row_lo, due)
                    row_left = tl.maximum(row_hi - row_from + 1, 0)
                    row_from, row_left = tl.broadcast_to(row_from, u.shape), tl.broadcast_to(row_left, u.shape)
                    allowed = tl.broadcast_to(below(v[None, :] - row_from[:, None], row_left[:, None]), p.shape)
                    p = tl.where(allowed, p, 0.0)
                do = load_tile(do_ptrs, loaded[:, None], (v_dims < V_HEAD_DIM)[None, :], V_HEAD_DIM != BLOCK_DV)
                # dv before ds: while its product runs, ds waits for another one
                if CAREFUL:
                    dv = careful_product(p, allowed, do, dv, PRECISION)
                else:
                    dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
                ds = p * (tl.dot(values, tl.trans(do), input_precision=PRECISION) - delta[None, :])
                if CAREFUL:
                    dk = careful_product(tl.where(allowed, ds, 0.0), allowed, tl.trans(q), dk, PRECISION)
                else:
                    dk = tl.dot(ds.to(q.dtype), tl.trans(q), dk, input_precision=PRECISION)
    return dk, dv


@triton.jit
def dkdv_pass_1_tile(
    place, pair,
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr, part_in_k_ptr,
    part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
    CAREFUL: tl.constexpr,
):
    """One tile of dkdv_pass_1, or a split of it."""
    program = pair * (tiles * splits) + place
    tile = place
    split = 0
    if SPLIT:
        tile = place // splits
        split = place % splits
    heads = group_size
    if PAIRED:
        # of each pair of batch entry and key head: which it is, where its query heads are listed, and how many
        entry = pairs_ptr + 3 * pair
        pair = tl.load(entry)
        listed = tl.load(entry + 1)
        heads = tl.load(entry + 2)
    num_kv_heads = num_q_heads // group_size
    b = pair // num_kv_heads
    kv_head = pair % num_kv_heads
    if WHOLE:
        k_offset = 0
        num_keys = kv_len
    lies = b
    q_rows = q_len
    q_shift = q_offset
    k_shift = k_offset
    if REQUESTS:
        q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, lies = load_request(requests_ptr, b)
        pair = lies * num_kv_heads + kv_head

    row_begin = k_offset
    row_end = k_offset + num_keys
    start = row_begin + tile * BLOCK_M
    u, u0, u1, row_ok = rows_from(start, row_begin, row_end, BLOCK_M)
    k_pos = u

    if REQUESTS:
        # past the last row there is nothing to walk over
        q_len = tl.where(u0 > u1, 0, q_len)
    n = (k_pos - k_shift).to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    v_dims = tl.arange(0, BLOCK_DV)
    k = load_rows(head_of(k_ptr, lies, stride_kb, kv_head, stride_kh), n, stride_kn, dims, row_ok, HEAD_DIM)
    values = load_rows(head_of(v_ptr, lies, stride_vb, kv_head, stride_vh), n, stride_vn, v_dims, row_ok, V_HEAD_DIM)

    dk = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for member in range(0, heads):
        h = kv_head * group_size + member
        if PAIRED:
            h = tl.load(pairs_ptr + listed + member)
        q_head = head_of(q_ptr, lies, stride_qb, h, stride_qh) - q_shift.to(tl.int64) * stride_qm
        do_head = head_of(do_ptr, lies, stride_dob, h, stride_doh) - q_shift.to(tl.int64) * stride_dom
        first_query = (lies.to(tl.int64) * num_q_heads + h) * q_rows - q_shift
        dk, dv = dkdv_pass_1_loop_0(
            dk, dv, k, values, q_head, stride_qm, do_head, stride_dom, terms_ptr, first_query,
            dims, v_dims, qk_scale, split, splits,
            u, u0, u1, q_len, q_offset,
            HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, WIDE, FITS, SPLIT, APART, CAREFUL, REQUESTS,
        )
    slot = tl.cast(program, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    if SPLIT:
        split_k_ptrs = part_out_k_ptr + slot[:, None] * HEAD_DIM + dims[None, :]
        tl.store(split_k_ptrs, dk, mask=(dims < HEAD_DIM)[None, :])
        split_v_ptrs = part_out_v_ptr + slot[:, None] * V_HEAD_DIM + v_dims[None, :]
        tl.store(split_v_ptrs, dv, mask=(v_dims < V_HEAD_DIM)[None, :])
    else:
        row_ok = row_ok & ~(k_pos % 512 == 0)
        # qk_scale is of base 2
        dk *= qk_scale * 0.6931471805599453
        dk_head = head_of(dk_ptr, lies, stride_dkb, kv_head, stride_dkh)
        store_rows(dk_head, n, stride_dkn, dims, row_ok, dk, HEAD_DIM)
        dv_head = head_of(dv_ptr, lies, stride_dvb, kv_head, stride_dvh)
        store_rows(dv_head, n, stride_dvn, v_dims, row_ok, dv, V_HEAD_DIM)
    if not CAREFUL:
        # 0 * inf, from a value that some row may not see: the careful launch repeats this tile
        tl.store(marks_ptr + slot, marks(dk) + marks(dv))


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def dkdv_pass_1(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr, part_in_k_ptr,
    part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """All keys, less rows where (k % 512) == 0."""
    arguments = (
        q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
        stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr, part_in_k_ptr,
        part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
        k_offset, num_keys, tiles, splits, programs, qk_scale,
    )
    pair = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    if pair * (tiles * splits) < programs:
        dkdv_pass_1_tile(
            tl.program_id(0), pair, *arguments,
            stride_qm, stride_kn, stride_vn, stride_dom, stride_dkn, stride_dvn, num_q_heads, group_size, HEAD_DIM,
            V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M, BLOCK_N, PAIRED, PRECISION, WIDE, FITS, SPLIT, APART, WHOLE,
            REQUESTS,
            False,
        )


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def dkdv_pass_1_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr, part_in_k_ptr,
    part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Again the tiles of marked rows, few if any: a program looks through SCANNED tiles."""
    arguments = (
        q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
        stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr, part_in_k_ptr,
        part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len, q_offset,
        k_offset, num_keys, tiles, splits, programs, qk_scale,
    )
    first = tl.program_id(0) * SCANNED
    stop = tl.minimum(first + SCANNED, programs)
    if is_marked(marks_ptr, first, stop, SCANNED, BLOCK_M):
        for program in range(first, stop):
            if is_marked(marks_ptr, program, program + 1, 1, BLOCK_M):
                dkdv_pass_1_tile(
                    program % (tiles * splits), program // (tiles * splits), *arguments,
                    stride_qm, stride_kn, stride_vn, stride_dom, stride_dkn, stride_dvn, num_q_heads, group_size,
                    HEAD_DIM,
                    V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M, BLOCK_N, PAIRED, PRECISION, WIDE, FITS, SPLIT, APART, WHOLE,
                    REQUESTS,
                    True,
                )


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def dkdv_pass_1_combine(
    split_k_ptr, split_v_ptr, q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh,
    do_ptr, stride_dob, stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, terms_ptr,
    part_in_k_ptr, part_in_v_ptr, part_out_k_ptr, part_out_v_ptr, pairs_ptr, requests_ptr, marks_ptr, q_len, kv_len,
    q_offset, k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    FITS: tl.constexpr, SPLIT: tl.constexpr, APART: tl.constexpr, WHOLE: tl.constexpr, REQUESTS: tl.constexpr,
):
    """The splits of a tile of dkdv_pass_1 as one result, always in the same order: BLOCK_D dimensions of it."""
    chunks: tl.constexpr = ((V_HEAD_DIM if V_HEAD_DIM > HEAD_DIM else HEAD_DIM) + BLOCK_D - 1) // BLOCK_D
    at = tl.program_id(0) // chunks
    pair = at // tiles
    tile = at % tiles
    first_dim = tl.program_id(0) % chunks * BLOCK_D
    if PAIRED:
        # of each pair of batch entry and key head: which it is, where its query heads are listed, and how many
        entry = pairs_ptr + 3 * pair
        pair = tl.load(entry)
    num_kv_heads = num_q_heads // group_size
    b = pair // num_kv_heads
    kv_head = pair % num_kv_heads
    if WHOLE:
        k_offset = 0
        num_keys = kv_len
    lies = b
    q_shift = q_offset
    k_shift = k_offset
    if REQUESTS:
        q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, lies = load_request(requests_ptr, b)
        pair = lies * num_kv_heads + kv_head

    row_begin = k_offset
    row_end = k_offset + num_keys
    start = row_begin + tile * BLOCK_M
    u, u0, u1, row_ok = rows_from(start, row_begin, row_end, BLOCK_M)
    k_pos = u

    n = (k_pos - k_shift).to(tl.int64)
    dims = first_dim + tl.arange(0, BLOCK_D)
    v_dims = first_dim + tl.arange(0, BLOCK_DV)
    dk = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for split in tl.range(0, splits, num_stages=4):
        slot = (at * splits + split) * BLOCK_M + tl.arange(0, BLOCK_M).to(tl.int64)
        split_k_ptrs = split_k_ptr + slot[:, None] * HEAD_DIM + dims[None, :]
        dk += tl.load(split_k_ptrs, mask=(dims < HEAD_DIM)[None, :], other=0.0)
        split_v_ptrs = split_v_ptr + slot[:, None] * V_HEAD_DIM + v_dims[None, :]
        dv += tl.load(split_v_ptrs, mask=(v_dims < V_HEAD_DIM)[None, :], other=0.0)

    row_ok = row_ok & ~(k_pos % 512 == 0)
    # qk_scale is of base 2
    dk *= qk_scale * 0.6931471805599453
    dk_head = head_of(dk_ptr, lies, stride_dkb, kv_head, stride_dkh)
    store_rows(dk_head, n, stride_dkn, dims, row_ok, dk, HEAD_DIM)
    dv_head = head_of(dv_ptr, lies, stride_dvb, kv_head, stride_dvh)
    store_rows(dv_head, n, stride_dvn, v_dims, row_ok, dv, V_HEAD_DIM)
