# Written by spattn: edits are lost, the templates are in codegen_templates/triton.
#
#   pattern  documents(ids) & causal & last(512)
#   means    ids[q] == ids[k] and k <= q and q <= k + 511
#   layout   pass 0: all queries
#              walk keys k = v
#                [u0 - 511 .. u1], full [u1 - 511 .. u0]
#                clamped to the documents ids of the tile's rows
#                partial tiles masked by the row's own range
#                partial tiles masked by ids[q] == ids[k]
import triton
import triton.language as tl

NOWHERE = tl.constexpr(1 << 30)
SCANNED = tl.constexpr(256)


@triton.jit
def read_1(pointer, i, size_i, stride_i):
    """pointer[i], the index clipped into the tensor."""
    place = tl.minimum(tl.maximum(i, 0), size_i - 1)
    return tl.load(pointer + place.to(tl.int64) * stride_i)


@triton.jit
def split_range(lo, hi, full_lo, full_hi, cursor, BLOCK_N: tl.constexpr):
    """The key tiles of a range: masked from its start, unmasked, masked to its end.

    Returns (first masked, their number, first unmasked, their number, first of the tail, their number, next cursor).
    """
    lo = tl.maximum(lo, cursor)
    full_lo = tl.maximum(full_lo, lo)
    full_hi = tl.minimum(full_hi, hi)
    full = lo + (full_lo - lo + BLOCK_N - 1) // BLOCK_N * BLOCK_N
    fulls = tl.maximum(full_hi + 1 - full, 0) // BLOCK_N
    tail = full + fulls * BLOCK_N
    heads = tl.maximum(tl.minimum(full, hi + 1) - lo + BLOCK_N - 1, 0) // BLOCK_N
    tails = tl.maximum(hi + 1 - tail + BLOCK_N - 1, 0) // BLOCK_N
    cursor = tl.where(lo <= hi, lo + (heads + fulls + tails) * BLOCK_N, cursor)
    return lo, heads, full, fulls, tail, tails, cursor


@triton.jit
def load_tile(pointers, inside, dims_inside, RAGGED: tl.constexpr, PADDED: tl.constexpr):
    """A tile of keys or values, 0 outside; only what can be ragged or padded is checked."""
    if RAGGED and PADDED:
        tile = tl.load(pointers, mask=inside & dims_inside, other=0.0)
    elif RAGGED:
        tile = tl.load(pointers, mask=inside, other=0.0)
    elif PADDED:
        tile = tl.load(pointers, mask=dims_inside, other=0.0)
    else:
        tile = tl.load(pointers)
    return tile


@triton.jit
def online_softmax(scores, v, acc, m_i, l_i, qk_scale, PRECISION: tl.constexpr):
    """One step of the online softmax; scores are unscaled, -inf where a pair is not allowed."""
    m_new = tl.maximum(m_i, tl.max(scores, 1) * qk_scale)
    m_safe = tl.where(m_new == float("-inf"), 0.0, m_new)
    p = tl.exp2(scores * qk_scale - m_safe[:, None])
    alpha = tl.exp2(m_i - m_safe)
    l_i = l_i * alpha + tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v, acc * alpha[:, None], input_precision=PRECISION)
    return acc, m_new, l_i


@triton.jit
def careful_softmax(scores, allowed, v, acc, m_i, l_i, qk_scale, PRECISION: tl.constexpr):
    """online_softmax for values that hold inf or NaN: 0 * inf would spoil the rows that may not see them."""
    finite = tl.abs(v) < float("inf")
    acc, m_i, l_i = online_softmax(scores, tl.where(finite, v, 0.0).to(v.dtype), acc, m_i, l_i, qk_scale, PRECISION)
    seen = tl.broadcast_to(allowed, scores.shape).to(v.dtype)
    rises = tl.where(finite | (v < 0), 0.0, 1.0).to(v.dtype)
    falls = tl.where(finite | (v > 0), 0.0, 1.0).to(v.dtype)
    acc += tl.where(tl.dot(seen, rises, input_precision=PRECISION) > 0, float("inf"), 0.0)
    acc -= tl.where(tl.dot(seen, falls, input_precision=PRECISION) > 0, float("inf"), 0.0)
    return acc, m_i, l_i


@triton.jit
def pass_0_walk_0(
    acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale,
    q_pos, u, u0, u1, kv_len, segment_0_first, segment_0_last, segment_0_run_first, segment_0_run_last, t0_ptr,
    t0_size_0, t0_stride_0,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_N: tl.constexpr, PRECISION: tl.constexpr, CAREFUL: tl.constexpr,
):
    """Attends to keys k = v."""
    last = kv_len - 1
    lo_0 = tl.maximum(u0 - 511, 0)
    hi_0 = tl.minimum(u1, last)
    full_lo_0 = u1 - 511
    full_hi_0 = u0
    lo_0 = tl.maximum(lo_0, segment_0_first)
    full_lo_0 = tl.maximum(full_lo_0, segment_0_run_first)
    hi_0 = tl.minimum(hi_0, segment_0_last)
    full_hi_0 = tl.minimum(full_hi_0, segment_0_run_last)
    first_0, heads_0, full_0, fulls_0, tail_0, tails_0, cursor = split_range(
        lo_0, hi_0, full_lo_0, full_hi_0, -NOWHERE, BLOCK_N
    )
    row_lo = u - 511
    row_hi = tl.minimum(u, last)
    for i in range(0, heads_0 + tails_0):
        start = tl.where(i < heads_0, first_0 + i * BLOCK_N, tail_0 + (i - heads_0) * BLOCK_N)
        v = start + tl.arange(0, BLOCK_N)
        inside = v <= last
        k_base = start.to(tl.int64)
        along = tl.arange(0, BLOCK_N).to(tl.int64)
        k_pos = v
        k_ptrs = k_head + k_base * stride_kn + (along * stride_kn)[None, :] + dims[:, None]
        v_ptrs = v_head + k_base * stride_vn + (along * stride_vn)[:, None] + v_dims[None, :]
        k = load_tile(k_ptrs, inside[None, :], (dims < HEAD_DIM)[:, None], True, HEAD_DIM != BLOCK_D)
        scores = tl.dot(q, k, input_precision=PRECISION)
        allowed = inside[None, :]
        allowed &= row_lo[:, None] <= v[None, :]
        allowed &= v[None, :] <= row_hi[:, None]
        allowed &= (
            ((0 <= q_pos[:, None]) & (q_pos[:, None] < kv_len) & (0 <= k_pos[None, :]) & (k_pos[None, :] < kv_len))
            & (
                read_1(t0_ptr, q_pos[:, None], t0_size_0, t0_stride_0)
                == read_1(t0_ptr, k_pos[None, :], t0_size_0, t0_stride_0)
            )
        )
        scores = tl.where(allowed, scores, float("-inf"))
        values = load_tile(v_ptrs, inside[:, None], (v_dims < V_HEAD_DIM)[None, :], True, V_HEAD_DIM != BLOCK_DV)
        if CAREFUL:
            acc, m_i, l_i = careful_softmax(scores, allowed, values, acc, m_i, l_i, qk_scale, PRECISION)
        else:
            acc, m_i, l_i = online_softmax(scores, values, acc, m_i, l_i, qk_scale, PRECISION)
    for i in range(0, fulls_0):
        start = full_0 + i * BLOCK_N
        k_base = start.to(tl.int64)
        along = tl.arange(0, BLOCK_N).to(tl.int64)
        k_ptrs = k_head + k_base * stride_kn + (along * stride_kn)[None, :] + dims[:, None]
        v_ptrs = v_head + k_base * stride_vn + (along * stride_vn)[:, None] + v_dims[None, :]
        k = load_tile(k_ptrs, True, (dims < HEAD_DIM)[:, None], False, HEAD_DIM != BLOCK_D)
        scores = tl.dot(q, k, input_precision=PRECISION)
        values = load_tile(v_ptrs, True, (v_dims < V_HEAD_DIM)[None, :], False, V_HEAD_DIM != BLOCK_DV)
        acc, m_i, l_i = online_softmax(scores, values, acc, m_i, l_i, qk_scale, PRECISION)
    return acc, m_i, l_i


@triton.jit
def pass_0_tile(
    program,
    q_ptr, stride_qb, stride_qh, stride_qm,
    k_ptr, stride_kb, stride_kh, stride_kn,
    v_ptr, stride_vb, stride_vh, stride_vn,
    out_ptr, stride_ob, stride_oh, stride_om,
    lse_ptr, part_in_ptr, part_in_lse_ptr, part_out_ptr, part_out_lse_ptr, pairs_ptr, spoiled_ptr,
    t0_ptr, t0_stride_b, t0_stride_h, t0_size_0, t0_stride_0,
    t1_ptr, t1_stride_b, t1_stride_h, t1_size_0, t1_stride_0,
    t2_ptr, t2_stride_b, t2_stride_h, t2_size_0, t2_stride_0,
    t3_ptr, t3_stride_b, t3_stride_h, t3_size_0, t3_stride_0,
    t4_ptr, t4_stride_b, t4_stride_h, t4_size_0, t4_stride_0,
    num_q_heads, group_size, q_len, kv_len, q_offset, tiles, programs, qk_scale,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr, PRECISION: tl.constexpr, CAREFUL: tl.constexpr,
):
    """One tile of pass_0."""
    pair = program // tiles
    tile = tiles - 1 - program % tiles
    if PAIRED:
        pair = tl.load(pairs_ptr + pair)
    b = pair // num_q_heads
    h = pair % num_q_heads
    t0_ptr += b.to(tl.int64) * t0_stride_b + h.to(tl.int64) * t0_stride_h
    t1_ptr += b.to(tl.int64) * t1_stride_b + h.to(tl.int64) * t1_stride_h
    t2_ptr += b.to(tl.int64) * t2_stride_b + h.to(tl.int64) * t2_stride_h
    t3_ptr += b.to(tl.int64) * t3_stride_b + h.to(tl.int64) * t3_stride_h
    t4_ptr += b.to(tl.int64) * t4_stride_b + h.to(tl.int64) * t4_stride_h

    row_begin = q_offset
    row_end = q_len + q_offset
    start = row_begin + tile * BLOCK_M
    u = start + tl.arange(0, BLOCK_M)
    u0 = tl.maximum(start, row_begin)
    u1 = tl.minimum(start + BLOCK_M, row_end) - 1
    row_ok = (u >= row_begin) & (u < row_end)
    q_pos = u
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

    m = (q_pos - q_offset).to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    v_dims = tl.arange(0, BLOCK_DV)
    q_base = q_ptr + b.to(tl.int64) * stride_qb + h.to(tl.int64) * stride_qh
    q = tl.load(
        q_base + m[:, None] * stride_qm + dims[None, :], mask=row_ok[:, None] & (dims < HEAD_DIM)[None, :], other=0.0
    )
    k_head = k_ptr + b.to(tl.int64) * stride_kb + (h // group_size).to(tl.int64) * stride_kh
    v_head = v_ptr + b.to(tl.int64) * stride_vb + (h // group_size).to(tl.int64) * stride_vh

    row = pair.to(tl.int64) * q_len + m
    m_i = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l_i = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    acc, m_i, l_i = pass_0_walk_0(
        acc, m_i, l_i, q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale,
        q_pos, u, u0, u1, kv_len, segment_0_first, segment_0_last, segment_0_run_first, segment_0_run_last, t0_ptr,
        t0_size_0, t0_stride_0,
        HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV, BLOCK_N, PRECISION, CAREFUL,
    )
    if not CAREFUL:
        # 0 * inf, from a value that some row may not see: the careful launch repeats this tile
        tl.store(spoiled_ptr + program, tl.max(tl.where(tl.abs(acc) < float("inf"), 0, 1), None))

    acc = acc / tl.where(l_i == 0.0, 1.0, l_i)[:, None]
    lse = m_i + tl.log2(tl.where(l_i == 0.0, 1.0, l_i))
    kept = row_ok[:, None] & (v_dims < V_HEAD_DIM)[None, :]
    out_base = out_ptr + b.to(tl.int64) * stride_ob + h.to(tl.int64) * stride_oh
    tl.store(out_base + m[:, None] * stride_om + v_dims[None, :], acc.to(out_ptr.dtype.element_ty), mask=kept)
    tl.store(lse_ptr + row, lse * 0.6931471805599453, mask=row_ok)


@triton.jit(
    do_not_specialize=["num_q_heads", "q_len", "kv_len", "q_offset", "tiles", "programs", "t0_stride_b", "t0_stride_h",
    "t0_size_0", "t1_stride_b", "t1_stride_h", "t1_size_0", "t2_stride_b", "t2_stride_h", "t2_size_0", "t3_stride_b",
    "t3_stride_h", "t3_size_0", "t4_stride_b", "t4_stride_h", "t4_size_0"]
)
def pass_0(
    q_ptr, stride_qb, stride_qh, stride_qm,
    k_ptr, stride_kb, stride_kh, stride_kn,
    v_ptr, stride_vb, stride_vh, stride_vn,
    out_ptr, stride_ob, stride_oh, stride_om,
    lse_ptr, part_in_ptr, part_in_lse_ptr, part_out_ptr, part_out_lse_ptr, pairs_ptr, spoiled_ptr,
    t0_ptr, t0_stride_b, t0_stride_h, t0_size_0, t0_stride_0,
    t1_ptr, t1_stride_b, t1_stride_h, t1_size_0, t1_stride_0,
    t2_ptr, t2_stride_b, t2_stride_h, t2_size_0, t2_stride_0,
    t3_ptr, t3_stride_b, t3_stride_h, t3_size_0, t3_stride_0,
    t4_ptr, t4_stride_b, t4_stride_h, t4_size_0, t4_stride_0,
    num_q_heads, group_size, q_len, kv_len, q_offset, tiles, programs, qk_scale,
    HEAD_DIM: tl.constexpr, V_HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAIRED: tl.constexpr, PRECISION: tl.constexpr, CAREFUL: tl.constexpr,
):
    """All queries."""
    if CAREFUL:
        # again the tiles that 0 * inf spoiled, few if any: a program looks through SCANNED of them
        first = tl.program_id(0) * SCANNED
        place = first + tl.arange(0, SCANNED)
        if tl.max(tl.load(spoiled_ptr + place, mask=place < programs, other=0).to(tl.int32), 0) > 0:
            for program in range(first, tl.minimum(first + SCANNED, programs)):
                if tl.load(spoiled_ptr + program) > 0:
                    pass_0_tile(
                        program,
                        q_ptr, stride_qb, stride_qh, stride_qm,
                        k_ptr, stride_kb, stride_kh, stride_kn,
                        v_ptr, stride_vb, stride_vh, stride_vn,
                        out_ptr, stride_ob, stride_oh, stride_om,
                        lse_ptr, part_in_ptr, part_in_lse_ptr, part_out_ptr, part_out_lse_ptr, pairs_ptr, spoiled_ptr,
                        t0_ptr, t0_stride_b, t0_stride_h, t0_size_0, t0_stride_0,
                        t1_ptr, t1_stride_b, t1_stride_h, t1_size_0, t1_stride_0,
                        t2_ptr, t2_stride_b, t2_stride_h, t2_size_0, t2_stride_0,
                        t3_ptr, t3_stride_b, t3_stride_h, t3_size_0, t3_stride_0,
                        t4_ptr, t4_stride_b, t4_stride_h, t4_size_0, t4_stride_0,
                        num_q_heads, group_size, q_len, kv_len, q_offset, tiles, programs, qk_scale,
                        HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV,
                        BLOCK_M, BLOCK_N, PAIRED, PRECISION, CAREFUL,
                    )
    else:
        pass_0_tile(
            tl.program_id(0),
            q_ptr, stride_qb, stride_qh, stride_qm,
            k_ptr, stride_kb, stride_kh, stride_kn,
            v_ptr, stride_vb, stride_vh, stride_vn,
            out_ptr, stride_ob, stride_oh, stride_om,
            lse_ptr, part_in_ptr, part_in_lse_ptr, part_out_ptr, part_out_lse_ptr, pairs_ptr, spoiled_ptr,
            t0_ptr, t0_stride_b, t0_stride_h, t0_size_0, t0_stride_0,
            t1_ptr, t1_stride_b, t1_stride_h, t1_size_0, t1_stride_0,
            t2_ptr, t2_stride_b, t2_stride_h, t2_size_0, t2_stride_0,
            t3_ptr, t3_stride_b, t3_stride_h, t3_size_0, t3_stride_0,
            t4_ptr, t4_stride_b, t4_stride_h, t4_size_0, t4_stride_0,
            num_q_heads, group_size, q_len, kv_len, q_offset, tiles, programs, qk_scale,
            HEAD_DIM, V_HEAD_DIM, BLOCK_D, BLOCK_DV,
            BLOCK_M, BLOCK_N, PAIRED, PRECISION, CAREFUL,
        )
