# Written by spattn: edits are lost, the templates are in codegen_templates/triton.
#
#   pattern  causal & (last(4096) | sink(64))
#   means    k <= q and ((k <= q and q <= k + 4095) or k <= 63)
#   layout   pass 0: all queries
#              walk keys k = offs_n
#                [begin .. min(63, last_m)], full [begin .. min(63, first_m)]
#                [first_m - 4095 .. last_m], full [last_m - 4095 .. first_m]
#                partial tiles masked by (k <= q and q <= k + 4095) or (k <= q and k <= 63)
import triton
import triton.language as tl

from spattn.kernels.triton import (
    LN_2, LOG2_E, NOWHERE, add_part, aligned_tiles_of, below, block_of, columns_of, combine_shares, empty_softmax,
    ends_of, head_of, head_rows, is_last, listed_head, load_shared, load_tile, normalised, online_softmax, places_from,
    places_in_cache, request_of_tile, share_of, spoiled, table_of,
)


@triton.jit
def decode_0_loop_0_tiles(
    first_m, last_m, k_offset, num_keys,
    BLOCK_N,
):
    """How many tiles of keys decode_0_loop_0 has."""
    last = k_offset + num_keys - 1
    lo_0, hi_0 = k_offset, tl.minimum(tl.minimum(63, last_m), last)
    lo_1, hi_1 = tl.maximum(first_m - 4095, k_offset), tl.minimum(last_m, last)
    lo_0, tiles_0, cursor = aligned_tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    lo_1, tiles_1, cursor = aligned_tiles_of(lo_1, hi_1, cursor, BLOCK_N)
    before_1 = tiles_0
    end = tl.where(first_m <= last_m, before_1 + tiles_1, 0)  # nothing for a tile without rows
    return end


@triton.jit
def decode_0_loop_0(
    acc, m_i, l_i, done, q, k_head, stride_kb, stride_kn, v_head, stride_vb, stride_vn, table_ptr, kept_ptr, ring_slots,
    ring_base,
    blocks, dims, v_dims, qk_scale, split, tiles_each,
    q_pos, row_ok, first_m, last_m, b, k_offset, num_keys,
    HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PAGE_SIZE, KEPT, IN_ORDER, SHARED, HAS_SHARED, PRECISION, REPAIR,
):
    """Attends to keys k = offs_n."""
    last = k_offset + num_keys - 1
    lo_0, hi_0 = k_offset, tl.minimum(tl.minimum(63, last_m), last)
    lo_1, hi_1 = tl.maximum(first_m - 4095, k_offset), tl.minimum(last_m, last)
    lo_0, tiles_0, cursor = aligned_tiles_of(lo_0, hi_0, -NOWHERE, BLOCK_N)
    lo_1, tiles_1, cursor = aligned_tiles_of(lo_1, hi_1, cursor, BLOCK_N)
    before_1 = tiles_0
    end = tl.where(first_m <= last_m, before_1 + tiles_1, 0)  # nothing for a tile without rows
    begin, stop = share_of(end, done, split, tiles_each)
    done += end
    for number in range(begin, stop):
        i = number
        start_n = lo_0 + i * BLOCK_N
        start_n = tl.where(i < before_1, start_n, lo_1 + (i - before_1) * BLOCK_N)
        load_n, offs_n, inside, loaded = columns_of(start_n, last, BLOCK_N, False, False)
        k_base, along = places_from(load_n, 1, BLOCK_N, False)
        k_at = (k_base + along).to(tl.int32)
        allowed = inside[None, :] & row_ok[:, None]
        if SHARED:
            allowed &= k_at[None, :] <= q_pos[:, None]  # the last of a request of its own
        if HAS_SHARED:
            allowed &= (k_at >= k_offset)[None, :]
        k_pos = offs_n
        allowed &= (
            below(q_pos[:, None] - k_pos[None, :], 4096) | ((k_pos[None, :] <= q_pos[:, None]) & (k_pos[None, :] <= 63))
        )
        attended = loaded & (tl.max(tl.where(allowed, 1, 0), 0) > 0)
        if IN_ORDER:
            block, first_key, there = block_of(load_n, attended, b, table_ptr, blocks, PAGE_SIZE)
            k_rows = k_head + (block * stride_kb + (k_base - first_key) * stride_kn) + along * stride_kn
            v_rows = v_head + (block * stride_vb + (k_base - first_key) * stride_vn) + along * stride_vn
        else:
            block, slot, there = places_in_cache(
                k_at, attended, b, table_ptr, kept_ptr, ring_slots, ring_base, blocks, PAGE_SIZE, KEPT
            )
            k_rows = k_head + (block * stride_kb + slot * stride_kn)
            v_rows = v_head + (block * stride_vb + slot * stride_vn)
        k_ptrs, v_ptrs = k_rows[None, :] + dims[:, None], v_rows[:, None] + v_dims[None, :]
        k = load_tile(k_ptrs, there[None, :], (dims < HEAD_DIM)[:, None], HEAD_DIM != BLOCK_D).to(q.dtype)
        scores = tl.dot(q, k, input_precision=PRECISION)
        if PAGE_SIZE > 0:
            # a row that attends a key whose page has been dropped is no number
            scores += tl.where(attended & ~there, float("nan"), 0.0)[None, :]
        scores = tl.where(allowed, scores, float("-inf"))
        v = load_tile(v_ptrs, there[:, None], (v_dims < V_HEAD_DIM)[None, :], V_HEAD_DIM != BLOCK_DV).to(q.dtype)
        acc, m_i, l_i = online_softmax(scores, allowed, v, acc, m_i, l_i, qk_scale, PRECISION, REPAIR)
    return acc, m_i, l_i, done


@triton.jit(
    do_not_specialize=["stride_lb", "stride_lh", "stride_lm", "stride_table", "ring_slots", "ring_base", "blocks",
    "capacity", "max_new", "shared_keys", "stride_k_scale", "stride_v_scale", "batch_size", "q_len", "heads", "splits"]
)
def decode(
    q_ptr, stride_qb, stride_qh, stride_qm, k_ptr, stride_kb, stride_kh, stride_kn, v_ptr, stride_vb, stride_vh,
    stride_vn, out_ptr, stride_ob, stride_oh, stride_om, lse_ptr, stride_lb, stride_lh, stride_lm, part_ptr,
    part_lse_ptr, arrived_ptr, kv_lens_ptr, cu_seqlens_ptr, table_ptr, stride_table, table_starts_ptr, kept_ptr,
    ring_slots, ring_base, blocks, capacity, max_new, shared_keys, k_scale_ptr, stride_k_scale, v_scale_ptr,
    stride_v_scale, sinks_ptr, heads_ptr, shared_ptr, shared_lse_ptr, batch_size, q_len, qk_scale, heads, splits,
    num_q_heads: tl.constexpr, group_size: tl.constexpr, HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    POSITIONS: tl.constexpr, SPLITS: tl.constexpr, BATCH: tl.constexpr, GROUP: tl.constexpr, PAGE_SIZE: tl.constexpr,
    KEPT: tl.constexpr, IN_ORDER: tl.constexpr, RAGGED: tl.constexpr, LISTED_HEADS: tl.constexpr,
    HAS_SINKS: tl.constexpr, HAS_LSE: tl.constexpr, HAS_SCALES: tl.constexpr, SHARED: tl.constexpr,
    HAS_SHARED: tl.constexpr, PRECISION: tl.constexpr,
):
    """POSITIONS positions of one request for the GROUP query heads of a program, over its share of the keys."""
    program = tl.program_id(0)
    head, place = program % heads, program // heads
    split, tile = place % splits, place // splits
    head = listed_head(heads_ptr, head, LISTED_HEADS)
    b, place, first, q_len, kv_len = request_of_tile(
        cu_seqlens_ptr, kv_lens_ptr, tile, batch_size, q_len, POSITIONS, BATCH, RAGGED, SHARED
    )
    if (place >= 0) & (place < q_len):
        table_ptr, room = table_of(table_ptr, table_starts_ptr, b, stride_table, capacity, PAGE_SIZE)
        k_offset, num_keys, q_offset = tl.full((), 0, tl.int32), kv_len, kv_len - q_len
        if SHARED:
            num_keys = shared_keys
        # who has more keys than there is room for, or more rows than were announced, answers NaN, and reads none
        fits = (num_keys <= room) & (SHARED or q_len <= max_new)
        num_keys = tl.where(fits, num_keys, 0)
        if HAS_SHARED:
            k_offset = shared_keys
            num_keys = tl.maximum(num_keys - shared_keys, 0)
        rows = tl.arange(0, BLOCK_M)
        own = place + rows // GROUP
        is_row = (rows < POSITIONS * GROUP) & (own < q_len)
        h = head * GROUP
        q_heads = h + rows % GROUP
        kv_head = h // group_size
        if POSITIONS == 1:
            q_pos = q_offset + place + tl.arange(0, 1)
            exists = q_pos >= q_offset
            if SHARED:
                q_pos = tl.load(kv_lens_ptr + place + tl.arange(0, 1)) - 1
                exists = q_pos >= 0
        else:
            q_pos, exists = q_offset + own, is_row
            if SHARED:
                # each row is the last of a request of its own
                q_pos = tl.load(kv_lens_ptr + own, mask=is_row, other=0) - 1
                exists = q_pos >= 0

        tiles = tl.full((), 0, tl.int32)
        row_ok = exists
        offs_m = q_pos
        row_ok &= (offs_m) == q_pos
        first_m, last_m = ends_of(offs_m, row_ok)

        tiles += decode_0_loop_0_tiles(
            first_m, last_m, k_offset, num_keys,
            BLOCK_N,
        )
        # of the request's own tiles alone, whatever else the batch has
        tiles_each = tl.maximum((tiles + splits - 1) // splits, 1)
        used = tl.maximum((tiles + tiles_each - 1) // tiles_each, 1)
        if split < used:
            dims, v_dims = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
            token = (first + own).to(tl.int64)
            q_ptrs = head_rows(q_ptr, b, stride_qb, q_heads, stride_qh, token, stride_qm, dims)
            q = tl.load(q_ptrs, mask=is_row[:, None] & (dims < HEAD_DIM)[None, :], other=0.0)
            k_head = k_ptr + kv_head.to(tl.int64) * stride_kh
            v_head = v_ptr + kv_head.to(tl.int64) * stride_vh
            if HAS_SCALES:
                qk_scale *= tl.load(k_scale_ptr + kv_head * stride_k_scale)
            acc, m_i, l_i = empty_softmax(BLOCK_M, BLOCK_DV)
            done = tl.full((), 0, tl.int32)
            acc, m_i, l_i, done = decode_0_loop_0(
                acc, m_i, l_i, done, q, k_head, stride_kb, stride_kn, v_head, stride_vb, stride_vn, table_ptr, kept_ptr,
                ring_slots, ring_base,
                blocks, dims, v_dims, qk_scale, split, tiles_each,
                q_pos, row_ok, first_m, last_m, b, k_offset, num_keys,
                HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PAGE_SIZE, KEPT, IN_ORDER, SHARED, HAS_SHARED,
                PRECISION, False,
            )
            if POSITIONS > 1:
                if spoiled(acc, is_row):
                    # 0 * inf, from a value that some row may not see
                    acc, m_i, l_i = empty_softmax(BLOCK_M, BLOCK_DV)
                    done = tl.full((), 0, tl.int32)
                    acc, m_i, l_i, done = decode_0_loop_0(
                        acc, m_i, l_i, done, q, k_head, stride_kb, stride_kn, v_head, stride_vb, stride_vn, table_ptr,
                        kept_ptr, ring_slots, ring_base,
                        blocks, dims, v_dims, qk_scale, split, tiles_each,
                        q_pos, row_ok, first_m, last_m, b, k_offset, num_keys,
                        HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PAGE_SIZE, KEPT, IN_ORDER, SHARED, HAS_SHARED,
                        PRECISION, True,
                    )
            v_scale = tl.where(fits, 1.0, float("nan"))
            if HAS_SCALES:
                v_scale *= tl.load(v_scale_ptr + kv_head * stride_v_scale)
            acc *= v_scale
            if used == 1:
                if HAS_SHARED:
                    row = (b * num_q_heads + q_heads).to(tl.int64)
                    shared, shared_lse = load_shared(shared_ptr, shared_lse_ptr, row, is_row, v_dims, V_HEAD_DIM)
                    acc, m_i, l_i = add_part(acc, m_i, l_i, shared, shared_lse)
                if HAS_SINKS:
                    sink = tl.load(sinks_ptr + q_heads, mask=is_row, other=0.0) * LOG2_E
                    acc, m_i, l_i = add_part(acc, m_i, l_i, tl.zeros_like(acc), sink)
                acc, lse = normalised(acc, m_i, l_i)
                out_ptrs = head_rows(out_ptr, b, stride_ob, q_heads, stride_oh, token, stride_om, v_dims)
                kept = is_row[:, None] & (v_dims < V_HEAD_DIM)[None, :]
                tl.store(out_ptrs, acc.to(out_ptr.dtype.element_ty), mask=kept)
                if HAS_LSE:
                    lse_ptrs = head_of(lse_ptr, b, stride_lb, q_heads, stride_lh) + token * stride_lm
                    tl.store(lse_ptrs, lse * LN_2, mask=is_row)
            else:
                acc, lse = normalised(acc, m_i, l_i)
                at = tile.to(tl.int64) * heads + program % heads
                row = (at * splits + split) * (POSITIONS * GROUP) + rows
                kept = is_row[:, None] & (v_dims < V_HEAD_DIM)[None, :]
                tl.store(part_ptr + row[:, None] * V_HEAD_DIM + v_dims[None, :], acc, mask=kept)
                tl.store(part_lse_ptr + row, lse, mask=is_row)
                if is_last(arrived_ptr + at, used):
                    combine_shares(
                        part_ptr, part_lse_ptr, at * splits, used, sinks_ptr, out_ptr, stride_ob, stride_oh, stride_om,
                        lse_ptr, stride_lb, stride_lh, stride_lm, shared_ptr, shared_lse_ptr, num_q_heads, b, h, first +
                        place,
                        tl.minimum(q_len - place, POSITIONS) * GROUP, v_dims, V_HEAD_DIM, POSITIONS * GROUP, GROUP,
                        SPLITS, HAS_SINKS, HAS_LSE, HAS_SHARED,
                    )
