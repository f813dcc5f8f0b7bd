#
#   pattern  columns([::512]) & causal | last(256)
#   means    (0 <= k and (k % 512) == 0 and k <= q) or (k <= q and q <= k + 255)
#   layout   grad_q 0: all queries
#              walk keys k = offs_n
#                [first_m - 255 .. last_m], full [last_m - 255 .. first_m]
#                partial tiles masked by the row's own range
#              walk keys k = 512*offs_n
#                [begin .. ((last_m + 256) // 512) - 1], full [begin .. ((first_m + 256) // 512) - 1]
#                partial tiles masked by the row's own range
#            grad_kv 0: keys k = 512*offs_m, which it owns
#              walk queries q = offs_n
#                [512*first_m .. last], full [512*last_m .. last]
#                partial tiles masked by the row's own range
#            grad_kv 1: all keys, less rows where (k % 512) == 0
#              walk queries q = offs_n
#                [first_m .. last_m + 255], full [last_m .. first_m + 255]
#                partial tiles masked by the row's own range
import triton
import triton.language as tl

from spattn.kernels.triton import (
    LN_2, LOG2_E, NOWHERE, SCANNED, accumulated, any_nonfinite, below, columns_of, combine_grad_kv, combine_grad_q,
    full_tiles, head_of, listed_head, load_row_stats, load_rows, load_tile, nonfinite, places_from, request_of,
    row_range, rows_from, share, split_of, store_row_stats, store_rows, tile_number, tiles_in, tiles_of,
)


@triton.jit
def grad_q_0_loop_0(
    dq, q, do, lse2, delta, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
    offs_m, first_m, last_m, k_offset, num_keys,
    HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, REPAIR,
):
    """Adds to dq what comes of keys k = offs_n, then keys k = 512*offs_n."""
    last = k_offset + num_keys - 1
    lo_0, hi_0 = tl.maximum(first_m - 255, k_offset), tl.minimum(last_m, last)
    full_lo_0, full_hi_0 = last_m - 255, first_m
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_lo = offs_m - 255
    row_hi = tl.minimum(offs_m, last)
    last_1 = ((k_offset + num_keys + 511) >> 9) - 1
    lo_1, hi_1 = (k_offset + 511) >> 9, tl.minimum(((last_m + 256) >> 9) - 1, last_1)
    full_lo_1, full_hi_1 = (k_offset + 511) >> 9, ((first_m + 256) >> 9) - 1
    lo_1, tiles_1, cursor = tiles_of(lo_1, hi_1, -NOWHERE, BLOCK_N)
    full_hi_1 = tl.minimum(full_hi_1, hi_1) - BLOCK_N + 1
    row_hi_1 = tl.minimum(((offs_m + 256) >> 9) - 1, last_1)
    before_1 = tiles_0
    end = tl.where(first_m <= last_m, before_1 + tiles_1, 0)  # nothing for a tile without rows
    begin, stop = share(end, split, splits, SPLIT_KV)
    for number in range(begin, stop):
        i = number
        start_n = lo_0 + i * BLOCK_N
        full_lo = full_lo_0
        full_hi = full_hi_0
        start_n = tl.where(i < before_1, start_n, lo_1 + (i - before_1) * BLOCK_N)
        full_lo = tl.where(i < before_1, full_lo, full_lo_1)
        full_hi = tl.where(i < before_1, full_hi, full_hi_1)
        last_now = last
        last_now = tl.where(i < before_1, last_now, last_1)
        load_n, offs_n, inside, loaded = columns_of(start_n, last_now, BLOCK_N, NO_TAIL, False)
        k_base = load_n
        k_base = tl.where(i < before_1, k_base, (512 * load_n))
        step = 1
        step = tl.where(i < before_1, step, 512)
        along = tl.arange(0, BLOCK_N) * step
        k_base = k_base.to(tl.int64)
        if INT64_OFFSETS:
            along = along.to(tl.int64)
        k_ptrs = k_head + k_base * stride_kn + ((along * stride_kn)[None, :] + dims[:, None])
        v_ptrs = v_head + k_base * stride_vn + ((along * stride_vn)[None, :] + v_dims[:, None])
        k = load_tile(k_ptrs, loaded[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D)
        p = tl.exp2(tl.dot(q, k, input_precision=PRECISION) * qk_scale - lse2[:, None])
        allowed = tl.broadcast_to(inside[None, :], p.shape)
        if (start_n < full_lo) | (start_n > full_hi):
            if i < before_1:
                row_from, row_count = row_range(tl.maximum(row_lo, start_n), row_hi, offs_m)
            else:
                row_from, row_count = row_range(start_n, row_hi_1, offs_m)
            allowed = tl.broadcast_to(below(offs_n[None, :] - row_from[:, None], row_count[:, None]), p.shape)
            p = tl.where(allowed, p, 0.0)
        v = load_tile(v_ptrs, loaded[None, :], (v_dims < V_HEAD_DIM)[:, None], V_HEAD_DIM != BLOCK_DV)
        ds = p * (tl.dot(do, v, input_precision=PRECISION) - delta[:, None])
        dq = accumulated(ds, allowed, tl.trans(k), dq, PRECISION, REPAIR)
    return dq


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def grad_q_0(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, out_ptr, stride_ob, stride_oh, dlse_ptr, stride_dlseb, stride_dlseh, dq_ptr, stride_dqb, stride_dqh,
    lse_ptr, row_stats_ptr, split_ptr, split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale, program,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_om: tl.constexpr, stride_dlsem: tl.constexpr, stride_dqm: tl.constexpr, num_q_heads: tl.constexpr,
    group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LISTED_HEADS: tl.constexpr,
    PRECISION: tl.constexpr, INT64_OFFSETS: tl.constexpr, NO_TAIL: tl.constexpr, SPLIT_KV: tl.constexpr,
    PEELED: tl.constexpr, ALL_KEYS: tl.constexpr, REQUESTS: tl.constexpr, REPAIR: tl.constexpr,
):
    """All queries."""
    if not REPAIR:
        program = tl.program_id(0)
    bh, place = program // (tiles * splits), program % (tiles * splits)
    tile, split = split_of(place, splits, SPLIT_KV)
    tile = tiles - 1 - tile
    bh = listed_head(bh_ptr, bh, LISTED_HEADS)
    b, h = bh // num_q_heads, bh % num_q_heads
    q_rows = q_len
    q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, entry = request_of(
        requests_ptr, b, q_len, kv_len, q_offset, k_offset, num_keys, ALL_KEYS, REQUESTS
    )

    row_begin, row_end = q_offset, q_len + q_offset
    start_m = row_begin + tile * BLOCK_M
    offs_m, first_m, last_m, row_ok = rows_from(start_m, row_begin, row_end, BLOCK_M)
    q_pos = offs_m

    m = (q_pos - q_shift).to(tl.int64)
    dims, v_dims = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    q = load_rows(head_of(q_ptr, entry, stride_qb, h, stride_qh), m, stride_qm, dims, row_ok, HEAD_DIM)
    do = load_rows(head_of(do_ptr, entry, stride_dob, h, stride_doh), m, stride_dom, v_dims, row_ok, V_HEAD_DIM)
    k_head = head_of(k_ptr, entry, stride_kb, h // group_size, stride_kh) - k_shift.to(tl.int64) * stride_kn
    v_head = head_of(v_ptr, entry, stride_vb, h // group_size, stride_vh) - k_shift.to(tl.int64) * stride_vn

    row = (entry * num_q_heads + h).to(tl.int64) * q_rows + m
    out = load_rows(head_of(out_ptr, entry, stride_ob, h, stride_oh), m, stride_om, v_dims, row_ok, V_HEAD_DIM)
    dlse_base = head_of(dlse_ptr, entry, stride_dlseb, h, stride_dlseh)
    dlse = tl.load(dlse_base + m * stride_dlsem, mask=row_ok, other=0.0)
    lse = tl.load(lse_ptr + row, mask=row_ok, other=float("-inf"))
    # a row without keys weighs nothing
    empty = lse == float("-inf")
    lse2 = tl.where(empty, float("inf"), lse * LOG2_E)
    delta = tl.where(empty, 0.0, tl.sum(out.to(tl.float32) * do.to(tl.float32), 1) - dlse)
    store_row_stats(row_stats_ptr, row, row_ok, lse2, delta)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dq = grad_q_0_loop_0(
        dq, q, do, lse2, delta, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
        offs_m, first_m, last_m, k_offset, num_keys,
        HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, REPAIR,
    )
    slot = tl.cast(program, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    if not REPAIR:
        # 0 * inf, from a value that some row may not see: the repair launch computes this tile again
        tl.store(flags_ptr + slot, nonfinite(dq))
    if SPLIT_KV:
        tl.store(split_row_ptr + slot, tl.where(row_ok, row, -1))
        store_rows(split_ptr, slot, HEAD_DIM, dims, slot >= 0, dq, HEAD_DIM)
    else:
        dq *= qk_scale * LN_2  # qk_scale is of base 2
        dq_head = head_of(dq_ptr, entry, stride_dqb, h, stride_dqh)
        store_rows(dq_head, m, stride_dqm, dims, row_ok, dq, HEAD_DIM)


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def grad_q_0_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, out_ptr, stride_ob, stride_oh, dlse_ptr, stride_dlseb, stride_dlseh, dq_ptr, stride_dqb, stride_dqh,
    lse_ptr, row_stats_ptr, split_ptr, split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len, q_offset,
    k_offset, num_keys, tiles, splits, programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_om: tl.constexpr, stride_dlsem: tl.constexpr, stride_dqm: tl.constexpr, num_q_heads: tl.constexpr,
    group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LISTED_HEADS: tl.constexpr,
    PRECISION: tl.constexpr, INT64_OFFSETS: tl.constexpr, NO_TAIL: tl.constexpr, SPLIT_KV: tl.constexpr,
    PEELED: tl.constexpr, ALL_KEYS: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Again the tiles whose rows are flagged, few if any: a program looks through SCANNED tiles."""
    first = tl.program_id(0) * SCANNED
    stop = tl.minimum(first + SCANNED, programs)
    if any_nonfinite(flags_ptr, first, stop, SCANNED, BLOCK_M):
        for program in range(first, stop):
            if any_nonfinite(flags_ptr, program, program + 1, 1, BLOCK_M):
                grad_q_0(
                    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr,
                    stride_dob, stride_doh, out_ptr, stride_ob, stride_oh, dlse_ptr, stride_dlseb, stride_dlseh, dq_ptr,
                    stride_dqb, stride_dqh, lse_ptr, row_stats_ptr, split_ptr, split_row_ptr, bh_ptr, requests_ptr,
                    flags_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles, splits, programs, qk_scale, program,
                    stride_qm, stride_kn, stride_vn, stride_dom, stride_om, stride_dlsem, stride_dqm, num_q_heads,
                    group_size, HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M, BLOCK_N, LISTED_HEADS, PRECISION,
                    INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED, ALL_KEYS, REQUESTS, True,
                )


grad_q_0_combine = combine_grad_q


@triton.jit
def grad_kv_0_loop_0(
    dk, dv, k, v, q_head, stride_qm, do_head, stride_dom, row_stats_ptr, first_query,
    dims, v_dims, qk_scale, split, splits,
    offs_m, first_m, last_m, q_len, q_offset,
    HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED, REPAIR,
):
    """Adds to dk and dv what comes of queries q = offs_n."""
    last = q_len + q_offset - 1
    lo_0, hi_0 = tl.maximum(512 * first_m, q_offset), last
    full_lo_0, full_hi_0 = 512 * last_m, last
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_lo = 512 * offs_m
    end = tl.where(first_m <= last_m, tiles_0, 0)  # nothing for a tile without rows
    before, full = full_tiles(lo_0, end, full_lo_0, full_hi_0, BLOCK_N)
    for phase in tl.static_range(1 + PEELED):  # partial tiles, then full ones; or all
        begin, stop = share(tiles_in(end, full, phase, PEELED), split, splits, SPLIT_KV)
        if begin < stop:
            for number in range(begin, stop):
                i = tile_number(number, before, full, phase, PEELED)
                start_n = lo_0 + i * BLOCK_N
                load_n, offs_n, inside, loaded = columns_of(start_n, last, BLOCK_N, NO_TAIL, PEELED and phase)
                q_base, along = places_from(load_n, 1, BLOCK_N, INT64_OFFSETS)
                q_ptrs = q_head + q_base * stride_qm + ((along * stride_qm)[None, :] + dims[:, None])
                do_ptrs = do_head + q_base * stride_dom + ((along * stride_dom)[:, None] + v_dims[None, :])
                q = load_tile(q_ptrs, loaded[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D)
                lse2, delta = load_row_stats(row_stats_ptr, first_query + q_base + along, loaded)
                p = tl.exp2(tl.dot(k, q, input_precision=PRECISION) * qk_scale - lse2[None, :])
                allowed = tl.broadcast_to(inside[None, :], p.shape)
                if phase == 0 if PEELED else (start_n < full_lo_0) | (start_n > full_hi_0):
                    row_from, row_count = row_range(tl.maximum(row_lo, start_n), last, offs_m)
                    allowed = tl.broadcast_to(below(offs_n[None, :] - row_from[:, None], row_count[:, None]), p.shape)
                    p = tl.where(allowed, p, 0.0)
                do = load_tile(do_ptrs, loaded[:, None], (v_dims < V_HEAD_DIM)[None, :], V_HEAD_DIM != BLOCK_DV)
                # dv before ds: while its product runs, ds waits for another one
                dv = accumulated(p, allowed, do, dv, PRECISION, REPAIR)
                ds = p * (tl.dot(v, tl.trans(do), input_precision=PRECISION) - delta[None, :])
                dk = accumulated(ds, allowed, tl.trans(q), dk, PRECISION, REPAIR)
    return dk, dv


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def grad_kv_0(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, row_stats_ptr, split_k_ptr, split_v_ptr,
    split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles, splits,
    programs, qk_scale, program,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LISTED_HEADS: tl.constexpr, PRECISION: tl.constexpr,
    INT64_OFFSETS: tl.constexpr, NO_TAIL: tl.constexpr, SPLIT_KV: tl.constexpr, PEELED: tl.constexpr,
    ALL_KEYS: tl.constexpr, REQUESTS: tl.constexpr, REPAIR: tl.constexpr,
):
    """Keys k = 512*offs_m, which it owns."""
    if not REPAIR:
        program = tl.program_id(0)
    bh, place = program // (tiles * splits), program % (tiles * splits)
    bh = programs // (tiles * splits) - 1 - bh  # the launch before left the last heads in the cache
    tile, split = split_of(place, splits, SPLIT_KV)
    heads = group_size
    if LISTED_HEADS:
        # of each batch entry and key head: which it is, where its query heads are listed, and how many
        item = bh_ptr + 3 * bh
        bh, listed, heads = tl.load(item), tl.load(item + 1), tl.load(item + 2)
    num_kv_heads = num_q_heads // group_size
    b, kv_head = bh // num_kv_heads, bh % num_kv_heads
    q_rows, k_rows = q_len, num_keys
    q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, entry = request_of(
        requests_ptr, b, q_len, kv_len, q_offset, k_offset, num_keys, ALL_KEYS, REQUESTS
    )

    row_begin, row_end = (k_offset + 511) >> 9, (k_offset + num_keys + 511) >> 9
    start_m = row_begin + tile * BLOCK_M
    offs_m, first_m, last_m, row_ok = rows_from(start_m, row_begin, row_end, BLOCK_M)
    k_pos = 512 * offs_m

    n = (k_pos - k_shift).to(tl.int64)
    dims, v_dims = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    k = load_rows(head_of(k_ptr, entry, stride_kb, kv_head, stride_kh), n, stride_kn, dims, row_ok, HEAD_DIM)
    v = load_rows(head_of(v_ptr, entry, stride_vb, kv_head, stride_vh), n, stride_vn, v_dims, row_ok, V_HEAD_DIM)

    row = (entry * num_kv_heads + kv_head).to(tl.int64) * k_rows + n
    dk = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for member in range(0, heads):
        h = kv_head * group_size + member
        if LISTED_HEADS:
            h = tl.load(bh_ptr + listed + member)
        q_head = head_of(q_ptr, entry, stride_qb, h, stride_qh) - q_shift.to(tl.int64) * stride_qm
        do_head = head_of(do_ptr, entry, stride_dob, h, stride_doh) - q_shift.to(tl.int64) * stride_dom
        first_query = (entry.to(tl.int64) * num_q_heads + h) * q_rows - q_shift
        dk, dv = grad_kv_0_loop_0(
            dk, dv, k, v, q_head, stride_qm, do_head, stride_dom, row_stats_ptr, first_query,
            dims, v_dims, qk_scale, split, splits,
            offs_m, first_m, last_m, q_len, q_offset,
            HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED,
            REPAIR,
        )
    slot = tl.cast(program, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    if not REPAIR:
        # 0 * inf, from a value that some row may not see: the repair launch computes this tile again
        tl.store(flags_ptr + slot, nonfinite(dk) + nonfinite(dv))
    if SPLIT_KV:
        tl.store(split_row_ptr + slot, tl.where(row_ok, row, -1))
        store_rows(split_k_ptr, slot, HEAD_DIM, dims, slot >= 0, dk, HEAD_DIM)
        store_rows(split_v_ptr, slot, V_HEAD_DIM, v_dims, slot >= 0, dv, V_HEAD_DIM)
    else:
        dk *= qk_scale * LN_2  # qk_scale is of base 2
        dk_head = head_of(dk_ptr, entry, stride_dkb, kv_head, stride_dkh)
        store_rows(dk_head, n, stride_dkn, dims, row_ok, dk, HEAD_DIM)
        dv_head = head_of(dv_ptr, entry, stride_dvb, kv_head, stride_dvh)
        store_rows(dv_head, n, stride_dvn, v_dims, row_ok, dv, V_HEAD_DIM)


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def grad_kv_0_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, row_stats_ptr, split_k_ptr, split_v_ptr,
    split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles, splits,
    programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LISTED_HEADS: tl.constexpr, PRECISION: tl.constexpr,
    INT64_OFFSETS: tl.constexpr, NO_TAIL: tl.constexpr, SPLIT_KV: tl.constexpr, PEELED: tl.constexpr,
    ALL_KEYS: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Again the tiles whose rows are flagged, few if any: a program looks through SCANNED tiles."""
    first = tl.program_id(0) * SCANNED
    stop = tl.minimum(first + SCANNED, programs)
    if any_nonfinite(flags_ptr, first, stop, SCANNED, BLOCK_M):
        for program in range(first, stop):
            if any_nonfinite(flags_ptr, program, program + 1, 1, BLOCK_M):
                grad_kv_0(
                    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr,
                    stride_dob, stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh,
                    row_stats_ptr, split_k_ptr, split_v_ptr, split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len,
                    kv_len, q_offset, k_offset, num_keys, tiles, splits, programs, qk_scale, program, stride_qm,
                    stride_kn, stride_vn, stride_dom, stride_dkn, stride_dvn, num_q_heads, group_size, HEAD_DIM,
                    V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M, BLOCK_N, LISTED_HEADS, PRECISION, INT64_OFFSETS, NO_TAIL,
                    SPLIT_KV, PEELED, ALL_KEYS, REQUESTS, True,
                )


grad_kv_0_combine = combine_grad_kv


@triton.jit
def grad_kv_1_loop_0(
    dk, dv, k, v, q_head, stride_qm, do_head, stride_dom, row_stats_ptr, first_query,
    dims, v_dims, qk_scale, split, splits,
    offs_m, first_m, last_m, q_len, q_offset,
    HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED, REPAIR,
):
    """Adds to dk and dv what comes of queries q = offs_n."""
    last = q_len + q_offset - 1
    lo_0, hi_0 = tl.maximum(first_m, q_offset), tl.minimum(last_m + 255, last)
    full_lo_0, full_hi_0 = last_m, first_m + 255
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_lo = offs_m
    row_hi = tl.minimum(offs_m + 255, last)
    end = tl.where(first_m <= last_m, tiles_0, 0)  # nothing for a tile without rows
    before, full = full_tiles(lo_0, end, full_lo_0, full_hi_0, BLOCK_N)
    for phase in tl.static_range(1 + PEELED):  # partial tiles, then full ones; or all
        begin, stop = share(tiles_in(end, full, phase, PEELED), split, splits, SPLIT_KV)
        if begin < stop:
            for number in range(begin, stop):
                i = tile_number(number, before, full, phase, PEELED)
                start_n = lo_0 + i * BLOCK_N
                load_n, offs_n, inside, loaded = columns_of(start_n, last, BLOCK_N, NO_TAIL, PEELED and phase)
                q_base, along = places_from(load_n, 1, BLOCK_N, INT64_OFFSETS)
                q_ptrs = q_head + q_base * stride_qm + ((along * stride_qm)[None, :] + dims[:, None])
                do_ptrs = do_head + q_base * stride_dom + ((along * stride_dom)[:, None] + v_dims[None, :])
                q = load_tile(q_ptrs, loaded[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D)
                lse2, delta = load_row_stats(row_stats_ptr, first_query + q_base + along, loaded)
                p = tl.exp2(tl.dot(k, q, input_precision=PRECISION) * qk_scale - lse2[None, :])
                allowed = tl.broadcast_to(inside[None, :], p.shape)
                if phase == 0 if PEELED else (start_n < full_lo_0) | (start_n > full_hi_0):
                    row_from, row_count = row_range(tl.maximum(row_lo, start_n), row_hi, offs_m)
                    allowed = tl.broadcast_to(below(offs_n[None, :] - row_from[:, None], row_count[:, None]), p.shape)
                    p = tl.where(allowed, p, 0.0)
                do = load_tile(do_ptrs, loaded[:, None], (v_dims < V_HEAD_DIM)[None, :], V_HEAD_DIM != BLOCK_DV)
                # dv before ds: while its product runs, ds waits for another one
                dv = accumulated(p, allowed, do, dv, PRECISION, REPAIR)
                ds = p * (tl.dot(v, tl.trans(do), input_precision=PRECISION) - delta[None, :])
                dk = accumulated(ds, allowed, tl.trans(q), dk, PRECISION, REPAIR)
    return dk, dv


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def grad_kv_1(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, row_stats_ptr, split_k_ptr, split_v_ptr,
    split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles, splits,
    programs, qk_scale, program,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LISTED_HEADS: tl.constexpr, PRECISION: tl.constexpr,
    INT64_OFFSETS: tl.constexpr, NO_TAIL: tl.constexpr, SPLIT_KV: tl.constexpr, PEELED: tl.constexpr,
    ALL_KEYS: tl.constexpr, REQUESTS: tl.constexpr, REPAIR: tl.constexpr,
):
    """All keys, less rows where (k % 512) == 0."""
    if not REPAIR:
        program = tl.program_id(0)
    bh, place = program // (tiles * splits), program % (tiles * splits)
    tile, split = split_of(place, splits, SPLIT_KV)
    heads = group_size
    if LISTED_HEADS:
        # of each batch entry and key head: which it is, where its query heads are listed, and how many
        item = bh_ptr + 3 * bh
        bh, listed, heads = tl.load(item), tl.load(item + 1), tl.load(item + 2)
    num_kv_heads = num_q_heads // group_size
    b, kv_head = bh // num_kv_heads, bh % num_kv_heads
    q_rows, k_rows = q_len, num_keys
    q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, entry = request_of(
        requests_ptr, b, q_len, kv_len, q_offset, k_offset, num_keys, ALL_KEYS, REQUESTS
    )

    row_begin, row_end = k_offset, k_offset + num_keys
    start_m = row_begin + tile * BLOCK_M
    offs_m, first_m, last_m, row_ok = rows_from(start_m, row_begin, row_end, BLOCK_M)
    k_pos = offs_m

    n = (k_pos - k_shift).to(tl.int64)
    dims, v_dims = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    k = load_rows(head_of(k_ptr, entry, stride_kb, kv_head, stride_kh), n, stride_kn, dims, row_ok, HEAD_DIM)
    v = load_rows(head_of(v_ptr, entry, stride_vb, kv_head, stride_vh), n, stride_vn, v_dims, row_ok, V_HEAD_DIM)

    row = (entry * num_kv_heads + kv_head).to(tl.int64) * k_rows + n
    dk = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for member in range(0, heads):
        h = kv_head * group_size + member
        if LISTED_HEADS:
            h = tl.load(bh_ptr + listed + member)
        q_head = head_of(q_ptr, entry, stride_qb, h, stride_qh) - q_shift.to(tl.int64) * stride_qm
        do_head = head_of(do_ptr, entry, stride_dob, h, stride_doh) - q_shift.to(tl.int64) * stride_dom
        first_query = (entry.to(tl.int64) * num_q_heads + h) * q_rows - q_shift
        dk, dv = grad_kv_1_loop_0(
            dk, dv, k, v, q_head, stride_qm, do_head, stride_dom, row_stats_ptr, first_query,
            dims, v_dims, qk_scale, split, splits,
            offs_m, first_m, last_m, q_len, q_offset,
            HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED,
            REPAIR,
        )
    slot = tl.cast(program, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    if not REPAIR:
        # 0 * inf, from a value that some row may not see: the repair launch computes this tile again
        tl.store(flags_ptr + slot, nonfinite(dk) + nonfinite(dv))
    row_ok &= ~(k_pos % 512 == 0)
    if SPLIT_KV:
        tl.store(split_row_ptr + slot, tl.where(row_ok, row, -1))
        store_rows(split_k_ptr, slot, HEAD_DIM, dims, slot >= 0, dk, HEAD_DIM)
        store_rows(split_v_ptr, slot, V_HEAD_DIM, v_dims, slot >= 0, dv, V_HEAD_DIM)
    else:
        dk *= qk_scale * LN_2  # qk_scale is of base 2
        dk_head = head_of(dk_ptr, entry, stride_dkb, kv_head, stride_dkh)
        store_rows(dk_head, n, stride_dkn, dims, row_ok, dk, HEAD_DIM)
        dv_head = head_of(dv_ptr, entry, stride_dvb, kv_head, stride_dvh)
        store_rows(dv_head, n, stride_dvn, v_dims, row_ok, dv, V_HEAD_DIM)


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def grad_kv_1_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr, stride_dob,
    stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh, row_stats_ptr, split_k_ptr, split_v_ptr,
    split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles, splits,
    programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_dom: tl.constexpr,
    stride_dkn: tl.constexpr, stride_dvn: tl.constexpr, num_q_heads: tl.constexpr, group_size: tl.constexpr,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LISTED_HEADS: tl.constexpr, PRECISION: tl.constexpr,
    INT64_OFFSETS: tl.constexpr, NO_TAIL: tl.constexpr, SPLIT_KV: tl.constexpr, PEELED: tl.constexpr,
    ALL_KEYS: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Again the tiles whose rows are flagged, few if any: a program looks through SCANNED tiles."""
    first = tl.program_id(0) * SCANNED
    stop = tl.minimum(first + SCANNED, programs)
    if any_nonfinite(flags_ptr, first, stop, SCANNED, BLOCK_M):
        for program in range(first, stop):
            if any_nonfinite(flags_ptr, program, program + 1, 1, BLOCK_M):
                grad_kv_1(
                    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, do_ptr,
                    stride_dob, stride_doh, dk_ptr, stride_dkb, stride_dkh, dv_ptr, stride_dvb, stride_dvh,
                    row_stats_ptr, split_k_ptr, split_v_ptr, split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len,
                    kv_len, q_offset, k_offset, num_keys, tiles, splits, programs, qk_scale, program, stride_qm,
                    stride_kn, stride_vn, stride_dom, stride_dkn, stride_dvn, num_q_heads, group_size, HEAD_DIM,
                    V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M, BLOCK_N, LISTED_HEADS, PRECISION, INT64_OFFSETS, NO_TAIL,
                    SPLIT_KV, PEELED, ALL_KEYS, REQUESTS, True,
                )


grad_kv_1_combine = combine_grad_kv
