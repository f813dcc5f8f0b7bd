# Written by spattn: edits are lost, the templates are in codegen_templates/triton.
#
#   pattern  documents(ids) & causal & last(512)
#   means    ids[q] == ids[k] and k <= q and q <= k + 511
#   layout   pass 0: all queries
#              walk keys k = offs_n
#                [first_m - 511 .. last_m], full [last_m - 511 .. first_m]
#                clamped to the documents ids of the tile's rows
#                partial tiles masked by the row's own range
#                partial tiles masked by ids[q] == ids[k]
import triton
import triton.language as tl

from spattn.kernels.triton import (
    LN_2, NOWHERE, SCANNED, any_nonfinite, below, carried, columns_of, combine_forward, empty_softmax, full_tiles,
    head_of, listed_head, load_rows, load_tile, nonfinite, normalised, online_softmax, places_from, read_1, request_of,
    row_range, rows_from, share, split_of, store_part, store_rows, tile_number, tiles_in, tiles_of,
)


@triton.jit
def attend_0_loop_0(
    acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
    q_pos, offs_m, first_m, last_m, kv_len, k_offset, num_keys, segment_0_first, segment_0_last, segment_0_run_first,
    segment_0_run_last, segment_0_whole, segment_0_run_start, segment_0_run_count, t0_ptr, t0_size_0, t0_stride_0,
    HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, INT64_OFFSETS, NO_TAIL, SPLIT_KV, PEELED, REPAIR,
):
    """Attends to keys k = offs_n."""
    last = k_offset + num_keys - 1
    lo_0, hi_0 = tl.maximum(first_m - 511, k_offset), tl.minimum(last_m, last)
    full_lo_0, full_hi_0 = last_m - 511, first_m
    lo_0 = tl.maximum(lo_0, segment_0_first)
    full_lo_0 = tl.maximum(full_lo_0, segment_0_run_first)
    hi_0 = tl.minimum(hi_0, segment_0_last)
    full_hi_0 = tl.minimum(full_hi_0, segment_0_run_last)
    lo_0, tiles_0, cursor = tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    full_hi_0 = tl.minimum(full_hi_0, hi_0) - BLOCK_N + 1
    row_lo = tl.where(segment_0_whole, tl.maximum(offs_m - 511, segment_0_run_start), offs_m - 511)
    row_hi = tl.where(
        segment_0_whole,
        tl.minimum(tl.minimum(offs_m, last), segment_0_run_start + segment_0_run_count - 1),
        tl.minimum(offs_m, last),
    )
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
            shown = carried(allowed, q)
            if phase == 0 if PEELED else (start_n < full_lo_0) | (start_n > full_hi_0):
                k_pos = offs_n
                row_from, row_count = row_range(tl.maximum(row_lo, start_n), row_hi, offs_m)
                allowed = tl.broadcast_to(below(offs_n[None, :] - row_from[:, None], row_count[:, None]), scores.shape)
                if not (segment_0_whole):
                    allowed &= (
                        (
                            (0 <= q_pos[:, None])
                            & (q_pos[:, None] < kv_len)
                            & (0 <= k_pos[None, :])
                            & (k_pos[None, :] < kv_len)
                        )
                        & (
                            read_1(t0_ptr, q_pos[:, None], t0_size_0, t0_stride_0)
                            == read_1(t0_ptr, k_pos[None, :], t0_size_0, t0_stride_0)
                        )
                    )
                scores = tl.where(allowed, scores, float("-inf"))
                shown = carried(allowed, q)
            allowed = shown != 0
            v = load_tile(v_ptrs, loaded[:, None], (v_dims < V_HEAD_DIM)[None, :], V_HEAD_DIM != BLOCK_DV)
            acc, m_i, l_i = online_softmax(scores, allowed, v, acc, m_i, l_i, qk_scale, PRECISION, REPAIR)
    return acc, m_i, l_i


@triton.jit(
    do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs",
    "t0_stride_b", "t0_stride_h", "t0_size_0", "t1_stride_b", "t1_stride_h", "t1_size_0", "t2_stride_b", "t2_stride_h",
    "t2_size_0", "t3_stride_b", "t3_stride_h", "t3_size_0", "t4_stride_b", "t4_stride_h", "t4_size_0"]
)
def attend_0(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, split_ptr, split_lse_ptr, split_scale_ptr, split_row_ptr, bh_ptr, requests_ptr, flags_ptr,
    t0_ptr, t0_stride_b, t0_stride_h, t0_size_0, t0_stride_0, t1_ptr, t1_stride_b, t1_stride_h, t1_size_0, t1_stride_0,
    t2_ptr, t2_stride_b, t2_stride_h, t2_size_0, t2_stride_0, t3_ptr, t3_stride_b, t3_stride_h, t3_size_0, t3_stride_0,
    t4_ptr, t4_stride_b, t4_stride_h, t4_size_0, t4_stride_0, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
    splits, programs, qk_scale, program,
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
    t0_ptr += b.to(tl.int64) * t0_stride_b + h.to(tl.int64) * t0_stride_h
    t1_ptr += b.to(tl.int64) * t1_stride_b + h.to(tl.int64) * t1_stride_h
    t2_ptr += b.to(tl.int64) * t2_stride_b + h.to(tl.int64) * t2_stride_h
    t3_ptr += b.to(tl.int64) * t3_stride_b + h.to(tl.int64) * t3_stride_h
    t4_ptr += b.to(tl.int64) * t4_stride_b + h.to(tl.int64) * t4_stride_h

    row_begin, row_end = q_offset, q_len + q_offset
    start_m = row_begin + tile * BLOCK_M
    offs_m, first_m, last_m, row_ok = rows_from(start_m, row_begin, row_end, BLOCK_M)
    q_pos = offs_m
    placed = row_ok & (q_pos >= 0) & (q_pos < kv_len)
    everyone = tl.min(tl.where(row_ok & ~placed, 0, 1), 0) == 1
    doc_start = read_1(t1_ptr, q_pos, t1_size_0, t1_stride_0)
    doc_stop = read_1(t2_ptr, q_pos, t2_size_0, t2_stride_0)
    run_start = read_1(t3_ptr, q_pos, t3_size_0, t3_stride_0)
    run_stop = read_1(t4_ptr, q_pos, t4_size_0, t4_stride_0)
    segment_0_first = tl.min(tl.where(placed, doc_start, NOWHERE), 0)
    segment_0_last = tl.max(tl.where(placed, doc_stop - 1, -NOWHERE), 0)
    segment_0_run_first = tl.max(tl.where(placed, run_start, -NOWHERE), 0)
    segment_0_run_last = tl.where(everyone, tl.min(tl.where(placed, run_stop - 1, NOWHERE), 0), -NOWHERE)
    in_pieces = (doc_start != run_start) | (doc_stop != run_stop)
    segment_0_whole = tl.min(tl.where(placed & in_pieces, 0, 1), 0) == 1
    segment_0_run_start = run_start
    segment_0_run_count = tl.where(placed, run_stop - run_start, 0)

    m = (q_pos - q_shift).to(tl.int64)
    dims, v_dims = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    q = load_rows(head_of(q_ptr, entry, stride_qb, h, stride_qh), m, stride_qm, dims, row_ok, HEAD_DIM)
    k_head = head_of(k_ptr, entry, stride_kb, h // group_size, stride_kh) - k_shift.to(tl.int64) * stride_kn
    v_head = head_of(v_ptr, entry, stride_vb, h // group_size, stride_vh) - k_shift.to(tl.int64) * stride_vn

    row = (entry * num_q_heads + h).to(tl.int64) * q_rows + m
    acc, m_i, l_i = empty_softmax(BLOCK_M, BLOCK_DV)
    acc, m_i, l_i = attend_0_loop_0(
        acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits,
        q_pos, offs_m, first_m, last_m, kv_len, k_offset, num_keys, segment_0_first, segment_0_last,
        segment_0_run_first, segment_0_run_last, segment_0_whole, segment_0_run_start, segment_0_run_count, t0_ptr,
        t0_size_0, t0_stride_0,
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


@triton.jit(
    do_not_specialize=["q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs",
    "t0_stride_b", "t0_stride_h", "t0_size_0", "t1_stride_b", "t1_stride_h", "t1_size_0", "t2_stride_b", "t2_stride_h",
    "t2_size_0", "t3_stride_b", "t3_stride_h", "t3_size_0", "t4_stride_b", "t4_stride_h", "t4_size_0"]
)
def attend_0_repair(
    q_ptr, stride_qb, stride_qh, k_ptr, stride_kb, stride_kh, v_ptr, stride_vb, stride_vh, out_ptr, stride_ob,
    stride_oh, lse_ptr, split_ptr, split_lse_ptr, split_scale_ptr, split_row_ptr, bh_ptr, requests_ptr, flags_ptr,
    t0_ptr, t0_stride_b, t0_stride_h, t0_size_0, t0_stride_0, t1_ptr, t1_stride_b, t1_stride_h, t1_size_0, t1_stride_0,
    t2_ptr, t2_stride_b, t2_stride_h, t2_size_0, t2_stride_0, t3_ptr, t3_stride_b, t3_stride_h, t3_size_0, t3_stride_0,
    t4_ptr, t4_stride_b, t4_stride_h, t4_size_0, t4_stride_0, q_len, kv_len, q_offset, k_offset, num_keys, tiles,
    splits, programs, qk_scale,
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
                    stride_ob, stride_oh, lse_ptr, split_ptr, split_lse_ptr, split_scale_ptr, split_row_ptr, bh_ptr,
                    requests_ptr, flags_ptr, t0_ptr, t0_stride_b, t0_stride_h, t0_size_0, t0_stride_0, t1_ptr,
                    t1_stride_b, t1_stride_h, t1_size_0, t1_stride_0, t2_ptr, t2_stride_b, t2_stride_h, t2_size_0,
                    t2_stride_0, t3_ptr, t3_stride_b, t3_stride_h, t3_size_0, t3_stride_0, t4_ptr, t4_stride_b,
                    t4_stride_h, t4_size_0, t4_stride_0, q_len, kv_len, q_offset, k_offset, num_keys, tiles, splits,
                    programs, qk_scale, program, stride_qm, stride_kn, stride_vn, stride_om, num_q_heads, group_size,
                    HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_M, BLOCK_N, LISTED_HEADS, PRECISION, INT64_OFFSETS,
                    NO_TAIL, SPLIT_KV, PEELED, ALL_KEYS, REQUESTS, True,
                )


attend_0_combine = combine_forward
