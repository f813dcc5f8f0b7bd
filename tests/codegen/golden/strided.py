# Written by spattn: edits are lost, the templates are in codegen_templates/triton.
#
#   pattern  strided(128) & causal | last(64)
#   means    (((q - k) % 128) == 0 and k <= q) or (k <= q and q <= k + 63)
#   layout   pass 0: all queries
#              walk keys k = offs_n
#                [first_m - 63 .. last_m], full [last_m - 63 .. first_m]
#                partial tiles masked by the row's own range
#            pass 1: queries q = 128*offs_m + c, for each residue c of 128
#              walk keys k = 128*offs_n + c
#                [begin .. last_m - 1], full [begin .. first_m - 1]
#                partial tiles masked by the row's own range
import triton
import triton.language as tl

from spattn.kernels.triton import (
    LN_2, NOWHERE, SCANNED, any_nonfinite, below, columns_of, combine_forward, empty_softmax, floor_mod, full_tiles,
    head_of, listed_head, load_part, load_rows, load_tile, nonfinite, normalised, online_softmax, places_from,
    request_of, row_range, rows_from, share, split_of, store_part, store_rows, tile_number, tiles_in, tiles_of,
)


@triton.jit
def attend_0_loop_0(
    acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
    offs_m, first_m, last_m, k_offset, num_keys,
    HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED, REPAIR,
):
    """Attends to keys k = offs_n."""
    last = k_offset + num_keys - 1
    lo_0, hi_0 = tl.maximum(first_m - 63, k_offset), tl.minimum(last_m, last)
    full_lo_0, full_hi_0 = last_m - 63, first_m
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_lo = offs_m - 63
    row_hi = tl.minimum(offs_m, last)
    end = tl.where(first_m <= last_m, tiles_0, 0)  # nothing for a tile without rows
    before, full = full_tiles(lo_0, end, full_lo_0, full_hi_0, BLOCK_N)
    for phase in tl.static_range(1 + PEELED):  # partial tiles, then full ones; or all
        begin, stop = share(tiles_in(end, full, phase, PEELED), split, splits, SPLIT_KV)
        for number in range(begin, stop):
            i = tile_number(number, before, full, phase, PEELED)
            start_n = lo_0 + i * BLOCK_N
            load_n, offs_n, inside, loaded = columns_of(start_n, last, BLOCK_N, NO_TAIL, PEELED and phase)
            k_base, along = places_from(load_n, 1, BLOCK_N, INT64_OFFSETS)
            k_ptrs = k_head + k_base * stride_kn + ((along * stride_kn)[None, :] + dims[:, None])
            v_ptrs = v_head + k_base * stride_vn + ((along * stride_vn)[:, None] + v_dims[None, :])
            k = load_tile(k_ptrs, loaded[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D)
            scores = tl.dot(q, k, input_precision=PRECISION)
            allowed = tl.broadcast_to(inside[None, :], scores.shape)
            if phase == 0 if PEELED else (start_n < full_lo_0) | (start_n > full_hi_0):
                row_from, row_count = row_range(tl.maximum(row_lo, start_n), row_hi, offs_m)
                allowed = tl.broadcast_to(below(offs_n[None, :] - row_from[:, None], row_count[:, None]), scores.shape)
                scores = tl.where(allowed, scores, float("-inf"))
            v = load_tile(v_ptrs, loaded[:, None], (v_dims < V_HEAD_DIM)[None, :], V_HEAD_DIM != BLOCK_DV)
            acc, m_i, l_i = online_softmax(scores, allowed, v, acc, m_i, l_i, qk_scale, PRECISION, REPAIR)
    return acc, m_i, l_i


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def attend_0(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, split_ptr, split_lse_ptr, split_scale_ptr,
    split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles, splits,
    programs, qk_scale, program,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LISTED_HEADS: tl.constexpr, PRECISION: tl.constexpr, INT64_OFFSETS: tl.constexpr, NO_TAIL: tl.constexpr,
    SPLIT_KV: tl.constexpr, PEELED: tl.constexpr, ALL_KEYS: tl.constexpr, REQUESTS: tl.constexpr, REPAIR: tl.constexpr,
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
    k_head = head_of(k_ptr, entry, stride_kb, h // group_size, stride_kh) - k_shift.to(tl.int64) * stride_kn
    v_head = head_of(v_ptr, entry, stride_vb, h // group_size, stride_vh) - k_shift.to(tl.int64) * stride_vn

    row = (entry * num_q_heads + h).to(tl.int64) * q_rows + m
    acc, m_i, l_i = empty_softmax(BLOCK_M, BLOCK_DV)
    acc, m_i, l_i = attend_0_loop_0(
        acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
        offs_m, first_m, last_m, k_offset, num_keys,
        HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED, REPAIR,
    )

    acc, lse = normalised(acc, m_i, l_i)
    slot = tl.cast(program, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    if not REPAIR:
        # 0 * inf, from a value that some row may not see: the repair launch computes this tile again
        lse += nonfinite(acc)
        tl.store(flags_ptr + slot, lse)
    if SPLIT_KV:
        tl.store(split_row_ptr + slot, tl.where(row_ok, row, -1))
        store_part(split_ptr, split_lse_ptr, split_scale_ptr, slot, slot >= 0, v_dims, acc, lse, V_HEAD_DIM)
    else:
        store_part(part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, row, row_ok, v_dims, acc, lse, V_HEAD_DIM)


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def attend_0_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, split_ptr, split_lse_ptr, split_scale_ptr,
    split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles, splits,
    programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LISTED_HEADS: tl.constexpr, PRECISION: tl.constexpr, INT64_OFFSETS: tl.constexpr, NO_TAIL: tl.constexpr,
    SPLIT_KV: tl.constexpr, PEELED: tl.constexpr, ALL_KEYS: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Again the tiles whose rows are flagged, few if any: a program looks through SCANNED tiles."""
    first = tl.program_id(0) * SCANNED
    stop = tl.minimum(first + SCANNED, programs)
    if any_nonfinite(flags_ptr, first, stop, SCANNED, BLOCK_M):
        for program in range(first, stop):
            if any_nonfinite(flags_ptr, program, program + 1, 1, BLOCK_M):
                attend_0(
                    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr,
                    stride_ob, stride_oh, lse_ptr, part_out_ptr, part_out_lse_ptr, part_out_scale_ptr, split_ptr,
                    split_lse_ptr, split_scale_ptr, split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len,
                    q_offset, k_offset, num_keys, tiles, splits, programs, qk_scale, program, stride_qm, stride_kn,
                    stride_vn, stride_om, num_q_heads, group_size, HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M,
                    BLOCK_N, LISTED_HEADS, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED, ALL_KEYS, REQUESTS,
                    True,
                )


attend_0_combine = combine_forward


@triton.jit
def attend_1_loop_0(
    acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
    offs_m, first_m, last_m, c, k_offset, num_keys,
    HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED, REPAIR,
):
    """Attends to keys k = 128*offs_n + c."""
    last = ((k_offset + num_keys - c + 127) >> 7) - 1
    lo_0, hi_0 = (k_offset - c + 127) >> 7, tl.minimum(last_m - 1, last)
    full_lo_0, full_hi_0 = (k_offset - c + 127) >> 7, first_m - 1
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_hi = tl.minimum(offs_m - 1, last)
    end = tl.where(first_m <= last_m, tiles_0, 0)  # nothing for a tile without rows
    before, full = full_tiles(lo_0, end, full_lo_0, full_hi_0, BLOCK_N)
    for phase in tl.static_range(1 + PEELED):  # partial tiles, then full ones; or all
        begin, stop = share(tiles_in(end, full, phase, PEELED), split, splits, SPLIT_KV)
        for number in range(begin, stop):
            i = tile_number(number, before, full, phase, PEELED)
            start_n = lo_0 + i * BLOCK_N
            load_n, offs_n, inside, loaded = columns_of(start_n, last, BLOCK_N, NO_TAIL, PEELED and phase)
            k_base, along = places_from((c + 128 * load_n), 128, BLOCK_N, INT64_OFFSETS)
            k_ptrs = k_head + k_base * stride_kn + ((along * stride_kn)[None, :] + dims[:, None])
            v_ptrs = v_head + k_base * stride_vn + ((along * stride_vn)[:, None] + v_dims[None, :])
            k = load_tile(k_ptrs, loaded[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D)
            scores = tl.dot(q, k, input_precision=PRECISION)
            allowed = tl.broadcast_to(inside[None, :], scores.shape)
            if phase == 0 if PEELED else (start_n < full_lo_0) | (start_n > full_hi_0):
                row_from, row_count = row_range(start_n, row_hi, offs_m)
                allowed = tl.broadcast_to(below(offs_n[None, :] - row_from[:, None], row_count[:, None]), scores.shape)
                scores = tl.where(allowed, scores, float("-inf"))
            v = load_tile(v_ptrs, loaded[:, None], (v_dims < V_HEAD_DIM)[None, :], V_HEAD_DIM != BLOCK_DV)
            acc, m_i, l_i = online_softmax(scores, allowed, v, acc, m_i, l_i, qk_scale, PRECISION, REPAIR)
    return acc, m_i, l_i


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def attend_1(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, split_ptr, split_lse_ptr, split_scale_ptr,
    split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles, splits,
    programs, qk_scale, program,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LISTED_HEADS: tl.constexpr, PRECISION: tl.constexpr, INT64_OFFSETS: tl.constexpr, NO_TAIL: tl.constexpr,
    SPLIT_KV: tl.constexpr, PEELED: tl.constexpr, ALL_KEYS: tl.constexpr, REQUESTS: tl.constexpr, REPAIR: tl.constexpr,
):
    """Queries q = 128*offs_m + c, for each residue c of 128."""
    if not REPAIR:
        program = tl.program_id(0)
    bh, place = program // (tiles * splits), program % (tiles * splits)
    bh = programs // (tiles * splits) - 1 - bh  # the launch before left the last heads in the cache
    tile, split = split_of(place, splits, SPLIT_KV)
    tile = tiles - 1 - tile
    bh = listed_head(bh_ptr, bh, LISTED_HEADS)
    b, h = bh // num_q_heads, bh % num_q_heads
    q_rows = q_len
    q_len, kv_len, q_offset, k_offset, num_keys, q_shift, k_shift, entry = request_of(
        requests_ptr, b, q_len, kv_len, q_offset, k_offset, num_keys, ALL_KEYS, REQUESTS
    )

    present = 128 if REQUESTS else tl.minimum(128, q_rows)
    c = floor_mod(q_offset + tile % present, 128)
    tile = tile // present
    row_begin, row_end = (q_offset - c + 127) >> 7, (q_len + q_offset - c + 127) >> 7
    start_m = row_begin + tile * BLOCK_M
    offs_m, first_m, last_m, row_ok = rows_from(start_m, row_begin, row_end, BLOCK_M)
    q_pos = c + 128 * offs_m

    m = (q_pos - q_shift).to(tl.int64)
    dims, v_dims = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    q = load_rows(head_of(q_ptr, entry, stride_qb, h, stride_qh), m, stride_qm, dims, row_ok, HEAD_DIM)
    k_head = head_of(k_ptr, entry, stride_kb, h // group_size, stride_kh) - k_shift.to(tl.int64) * stride_kn
    v_head = head_of(v_ptr, entry, stride_vb, h // group_size, stride_vh) - k_shift.to(tl.int64) * stride_vn

    row = (entry * num_q_heads + h).to(tl.int64) * q_rows + m
    begun = row_ok & (not SPLIT_KV)

    acc, m_i = load_part(part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, row, begun, v_dims, V_HEAD_DIM)
    l_i = tl.where(m_i == float("-inf"), 0.0, 1.0)
    acc, m_i, l_i = attend_1_loop_0(
        acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
        offs_m, first_m, last_m, c, k_offset, num_keys,
        HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED, REPAIR,
    )

    acc, lse = normalised(acc, m_i, l_i)
    slot = tl.cast(program, tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    if not REPAIR:
        # 0 * inf, from a value that some row may not see: the repair launch computes this tile again
        lse += nonfinite(acc)
        tl.store(flags_ptr + slot, lse)
    if SPLIT_KV:
        tl.store(split_row_ptr + slot, tl.where(row_ok, row, -1))
        store_part(split_ptr, split_lse_ptr, split_scale_ptr, slot, slot >= 0, v_dims, acc, lse, V_HEAD_DIM)
    else:
        store_rows(head_of(out_ptr, entry, stride_ob, h, stride_oh), m, stride_om, v_dims, row_ok, acc, V_HEAD_DIM)
        tl.store(lse_ptr + row, lse * LN_2, mask=row_ok)


@triton.jit(do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs"])
def attend_1_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, split_ptr, split_lse_ptr, split_scale_ptr,
    split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len, q_offset, k_offset, num_keys, tiles, splits,
    programs, qk_scale,
    stride_qm: tl.constexpr, stride_kn: tl.constexpr, stride_vn: tl.constexpr, stride_om: tl.constexpr,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LISTED_HEADS: tl.constexpr, PRECISION: tl.constexpr, INT64_OFFSETS: tl.constexpr, NO_TAIL: tl.constexpr,
    SPLIT_KV: tl.constexpr, PEELED: tl.constexpr, ALL_KEYS: tl.constexpr, REQUESTS: tl.constexpr,
):
    """Again the tiles whose rows are flagged, few if any: a program looks through SCANNED tiles."""
    first = tl.program_id(0) * SCANNED
    stop = tl.minimum(first + SCANNED, programs)
    if any_nonfinite(flags_ptr, first, stop, SCANNED, BLOCK_M):
        for program in range(first, stop):
            if any_nonfinite(flags_ptr, program, program + 1, 1, BLOCK_M):
                attend_1(
                    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr,
                    stride_ob, stride_oh, lse_ptr, part_in_ptr, part_in_lse_ptr, part_in_scale_ptr, split_ptr,
                    split_lse_ptr, split_scale_ptr, split_row_ptr, bh_ptr, requests_ptr, flags_ptr, q_len, kv_len,
                    q_offset, k_offset, num_keys, tiles, splits, programs, qk_scale, program, stride_qm, stride_kn,
                    stride_vn, stride_om, num_q_heads, group_size, HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M,
                    BLOCK_N, LISTED_HEADS, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED, ALL_KEYS, REQUESTS,
                    True,
                )


attend_1_combine = combine_forward
