"""Each atom against a definition written by hand, pair by pair, without the compiler's own expressions."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from spattn.errors import ArgumentError, SpattnError
from spattn.expressions.algebra import subexpressions
from spattn.frontend.meaning import free_names, meaning
from spattn.frontend.parser import parse
from spattn.oracle import attention, mask
from tests.strategies import patterns, tensors_for

LENGTHS = [(9, 9), (13, 13), (5, 12), (12, 5), (1, 17), (0, 4), (4, 0), (40, 40)]
OFFSETS = [(6, 9, 2), (8, 9, -5), (8, 9, 6), (30, 9, -6), (4, 9, -20), (4, 9, 30), (20, 20, 12), (5, 1, -2)]


def by_hand(rule, q_len, kv_len, q_offset=None):
    first = kv_len - q_len if q_offset is None else q_offset
    rows = [[bool(rule(first + i, k, kv_len)) for k in range(kv_len)] for i in range(q_len)]
    return np.array(rows, np.bool_).reshape(q_len, kv_len)


def picks(position, length, *items):
    """Does `list(range(length))[..]` of one of `items` hold `position`? Python itself is the judge."""
    everything = range(max(length, 0))
    for item in items:
        chosen = everything[item] if isinstance(item, slice) else [i % length for i in [item] if -length <= i < length]
        if position in chosen:
            return True
    return False


def natten_axis(q, k, n, kernel, stride=1, dilation=1, causal=False, cut=False):
    """One axis: the members of q's residue class, and the window of them that its leader sees."""
    if q % dilation != k % dilation:
        return False
    members = list(range(q % dilation, n, dilation))
    place, last = members.index(q), len(members) - 1
    if causal:
        leader = min(place // stride * stride + stride - 1, last)
        return k <= q and k in members[max(leader - kernel + 1, 0) : leader + 1]
    leader = min(place // stride * stride + stride // 2, last)
    start = leader - kernel // 2
    if cut:
        return k in members[max(start, 0) : max(start + kernel, 0)]
    start = max(min(start, len(members) - kernel), 0)
    return k in members[start : start + kernel]


def natten(grid, kernel, stride=None, dilation=None, causal=None, cut=False):
    rank = len(grid)
    stride, dilation, causal = stride or [1] * rank, dilation or [1] * rank, causal or [False] * rank

    def rule(q, k, length):
        if not (0 <= q < np.prod(grid) and 0 <= k < np.prod(grid)):
            return False
        at, of = np.unravel_index(q, grid), np.unravel_index(k, grid)
        axes = zip(at, of, grid, kernel, stride, dilation, causal, strict=True)
        return all(natten_axis(*axis, cut) for axis in axes)

    return rule


ATOMS = {
    "full": lambda q, k, n: True,
    "none": lambda q, k, n: False,
    "causal": lambda q, k, n: k <= q,
    "anticausal": lambda q, k, n: k >= q,
    "local(2)": lambda q, k, n: abs(q - k) <= 2,
    "local(0)": lambda q, k, n: q == k,
    "local(inf)": lambda q, k, n: True,
    "local(3, 1)": lambda q, k, n: -1 <= q - k <= 3,
    "local(inf, 0)": lambda q, k, n: -0 <= q - k <= inf,
    "local(left=1, right=inf)": lambda q, k, n: q - k <= 1,
    "local(2, dilation=3)": lambda q, k, n: q - k in (-6, -3, 0, 3, 6),
    "local(1, 2, dilation=2)": lambda q, k, n: q - k in (-4, -2, 0, 2),
    "last(3)": lambda q, k, n: q - k in (0, 1, 2),
    "last(0)": lambda q, k, n: False,
    "last(inf)": lambda q, k, n: k <= q,
    "last(3, dilation=2)": lambda q, k, n: q - k in (0, 2, 4),
    "strided(3)": lambda q, k, n: (q - k) % 3 == 0,
    "diagonals([0, 2, -3])": lambda q, k, n: q - k in (0, 2, -3),
    "diagonals([-2:7:3])": lambda q, k, n: q - k in (-2, 1, 4),
    "diagonals([5:])": lambda q, k, n: q - k >= 5,
    "diagonals([:-4])": lambda q, k, n: q - k < -4,
    "columns([0, 3, -1, 99])": lambda q, k, n: picks(k, n, 0, 3, -1, 99),
    "columns([2:5, 7:])": lambda q, k, n: picks(k, n, slice(2, 5), slice(7, None)),
    "columns([-3:])": lambda q, k, n: picks(k, n, slice(-3, None)),
    "columns([-30::4])": lambda q, k, n: picks(k, n, slice(-30, None, 4)),
    "columns([:-3])": lambda q, k, n: picks(k, n, slice(None, -3)),
    "columns([:-30])": lambda q, k, n: picks(k, n, slice(None, -30)),
    "columns([::4])": lambda q, k, n: picks(k, n, slice(None, None, 4)),
    "columns([1:-1:3])": lambda q, k, n: picks(k, n, slice(1, -1, 3)),
    f"columns({list(range(3, 25))})": lambda q, k, n: 3 <= k < 25,
    "rows([0, -2])": lambda q, k, n: picks(q, n, 0, -2),
    "rows([-4::2])": lambda q, k, n: picks(q, n, slice(-4, None, 2)),
    "rows([:])": lambda q, k, n: picks(q, n, slice(None)),
    "rows([3:12, 14::2])": lambda q, k, n: picks(q, n, slice(3, 12), slice(14, None, 2)),
    "rows([1:-2])": lambda q, k, n: picks(q, n, slice(1, -2)),
    f"rows({list(range(5, 25))})": lambda q, k, n: picks(q, n, slice(5, 25)),
    "global([5:6, 8:])": lambda q, k, n: picks(q, n, 5, slice(8, None)) or picks(k, n, 5, slice(8, None)),
    "blockwise(3, rows([1:]))": lambda q, k, n: picks(q // 3, -(-n // 3), slice(1, None)),
    "global([1, -1])": lambda q, k, n: picks(q, n, 1, -1) or picks(k, n, 1, -1),
    "sink(2)": lambda q, k, n: k < 2,
    "prefix(4)": lambda q, k, n: k < 4,
    "tail(2)": lambda q, k, n: picks(q, n, slice(-2, None)),
    "tail(0)": lambda q, k, n: False,
    "chunk(4)": lambda q, k, n: q // 4 == k // 4,
    "chunk(4, 1)": lambda q, k, n: q // 4 - k // 4 in (0, 1),
    "chunk(3, back=inf, ahead=1)": lambda q, k, n: q // 3 - k // 3 >= -1,
    "fixed(4, 1)": lambda q, k, n: q // 4 == k // 4 or k % 4 >= 3,
    "blockwise(3, local(0) | global([0, -1]))": lambda q, k, n: (
        q // 3 == k // 3 or picks(q // 3, -(-n // 3), 0, -1) or picks(k // 3, -(-n // 3), 0, -1)
    ),
    "blockwise(2, blockwise(2, causal))": lambda q, k, n: k // 4 <= q // 4,
    "where(abs(q - k) % 4 == 1 and not k < 2)": lambda q, k, n: abs(q - k) % 4 == 1 and not k < 2,
    "where(min(q, 3) + max(k, 2) - 1 != q // 2 * 2 or q * k > kv_len)": lambda q, k, n: (
        min(q, 3) + max(k, 2) - 1 != q // 2 * 2 or q * k > n
    ),
    "where(-q // 3 <= k % 5)": lambda q, k, n: -q // 3 <= k % 5,
    "where((q - k) % 2)": lambda q, k, n: (q - k) % 2 == 1,
    "neighborhood(9, 3)": natten([9], [3]),
    "neighborhood([9], 4)": natten([9], [4]),
    "neighborhood([9], 3, border=cut)": natten([9], [3], cut=True),
    "neighborhood([13], 3, dilation=2)": natten([13], [3], dilation=[2]),
    "neighborhood([13], 3, stride=2)": natten([13], [3], stride=[2]),
    "neighborhood([13], 5, stride=4, dilation=2)": natten([13], [5], [4], [2]),
    "neighborhood([13], 5, stride=3, dilation=2, causal=true)": natten([13], [5], [3], [2], [True]),
    "neighborhood([9], 20)": natten([9], [20]),
    "neighborhood([5, 8], 3)": natten([5, 8], [3, 3]),
    "neighborhood([5, 8], [3, 4], stride=[1, 2], dilation=[2, 1], causal=[true, false])": natten(
        [5, 8], [3, 4], [1, 2], [2, 1], [True, False]
    ),
    "neighborhood([3, 4, 3], [3, 2, 1])": natten([3, 4, 3], [3, 2, 1]),
    "~causal": lambda q, k, n: k > q,
    "full - causal & local(2)": lambda q, k, n: k > q and abs(q - k) <= 2,
    "longformer(2, [0])": lambda q, k, n: abs(q - k) <= 2 or picks(q, n, 0) or picks(k, n, 0),
    "sparse_transformer_strided(4)": lambda q, k, n: 0 <= q - k < 4 or (k <= q and (q - k) % 4 == 0),
    "sparse_transformer_fixed(4, 1)": lambda q, k, n: k <= q and (q // 4 == k // 4 or k % 4 == 3),
    "streaming_llm(2, 3)": lambda q, k, n: k <= q and (k < 2 or q - k < 3),
    "tri_shape(1, 2, 3)": lambda q, k, n: k <= q and (k < 1 or q - k < 2 or picks(q, n, slice(-3, None))),
    "prefix_lm(3)": lambda q, k, n: k <= q or k < 3,
    "llama4_chunked(4)": lambda q, k, n: k <= q and q // 4 == k // 4,
    "vertical_slash([0, -1], [0, 5])": lambda q, k, n: k <= q and (picks(k, n, 0, -1) or q - k in (0, 5)),
    "axial(5)": lambda q, k, n: q // 5 == k // 5 or q % 5 == k % 5,
    "log_sparse": lambda q, k, n: q - k == 0 or (q > k and (q - k) & (q - k - 1) == 0),
}


@pytest.mark.parametrize("text", ATOMS)
def test_an_atom_is_its_definition(text):
    for q_len, kv_len in LENGTHS:
        np.testing.assert_array_equal(mask(parse(text), q_len, kv_len), by_hand(ATOMS[text], q_len, kv_len), text)
    for q_len, kv_len, q_offset in OFFSETS:
        expected = by_hand(ATOMS[text], q_len, kv_len, q_offset)
        np.testing.assert_array_equal(mask(parse(text), q_len, kv_len, q_offset=q_offset), expected, text)


def test_heads_and_batch():
    heads = mask(parse("heads([0, -1, 2:4]) & causal"), 3, 3, num_heads=7, batch_size=2)
    assert heads.shape == (2, 7, 3, 3)
    assert [bool(heads[1, h, 2, 0]) for h in range(7)] == [True, False, True, True, False, False, True]
    batch = mask(parse("batch([-1])"), 2, 2, num_heads=1, batch_size=3)
    assert batch.any(axis=(1, 2, 3)).tolist() == [False, False, True]
    heads = mask(parse("where(h % 2 == b)"), 1, 1, num_heads=4, batch_size=2)
    assert heads[:, :, 0, 0].tolist() == [[True, False, True, False], [False, True, False, True]]


def test_longnet_shifts_by_head():
    given = mask(parse("longnet(8, 2)"), 16, 16, num_heads=2)[0]
    for h in range(2):
        want = by_hand(lambda q, k, n: q // 8 == k // 8 and q % 2 == k % 2 == h, 16, 16)  # noqa: B023
        np.testing.assert_array_equal(given[h], want)


IDS = [3, 3, 3, 1, 1, 0, 0, 0, 0, 7]


@pytest.mark.parametrize("ids", [IDS, [2, 1, 2, 1, 1, 0, 2, 0, 5, 5], [0, 2, 4, 6, 8, 8, 8, 9, 10, 10]])
def test_documents(ids):
    of = np.array(ids)
    for dtype in (np.uint8, np.int16, np.uint64):
        given = mask(parse("documents(d)"), 10, 10, tensors={"d": of.astype(dtype)})
        np.testing.assert_array_equal(given, of[:, None] == of[None, :])


@pytest.mark.parametrize(
    ("cu", "of"),
    [
        ([0, 3, 5, 9, 10], [0, 0, 0, 1, 1, 2, 2, 2, 2, 3]),
        ([0, 3, 5, 9, 10, 10, 10], [0, 0, 0, 1, 1, 2, 2, 2, 2, 3]),
        ([0, 3, 3, 3, 10], [0, 0, 0, 3, 3, 3, 3, 3, 3, 3]),
        ([2, 5, 8], [None, None, 0, 0, 0, 1, 1, 1, None, None]),
        ([-4, 2, 40], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]),
        ([4], [None] * 10),
    ],
)
def test_segments_are_documents(cu, of):
    starts = {d: of.index(d) for d in of}
    given = mask(parse("documents(segments(cu))"), 12, 10, tensors={"cu": np.array(cu)})
    want = by_hand(lambda q, k, n: q >= 0 and of[q] is not None and of[q] == of[k], 12, 10)
    np.testing.assert_array_equal(given, want)
    given = mask(parse("within(segments(cu), sink(1))"), 10, 10, tensors={"cu": np.array(cu)})
    np.testing.assert_array_equal(
        given, by_hand(lambda q, k, n: of[q] is not None and of[q] == of[k] and k == starts[of[k]], 10, 10)
    )


Q_IDS, K_IDS = [7, 7, 4, 4, 4, -1, 9], [4, 4, 7, 7, 7, 7, 2, 9]


@pytest.mark.parametrize("q_offset", [None, 0, 5, -3])
def test_documents_on_two_sides(q_offset):
    given = mask(
        parse("documents(x, y)"), 7, 8, q_offset=q_offset, tensors={"x": np.array(Q_IDS), "y": np.array(K_IDS)}
    )
    np.testing.assert_array_equal(given, np.array(Q_IDS)[:, None] == np.array(K_IDS))
    # the last query of a document stands at its last key: 7 has rows 0, 1 and keys 2 .. 5, 4 rows 2 .. 4 and keys 0, 1
    tensors = {"x": np.array([Q_IDS, Q_IDS[::-1]]), "y": np.array(K_IDS)}
    given = mask(parse("within(x, y, causal)"), 7, 8, q_offset=q_offset, batch_size=2, tensors=tensors)[0, 0]
    wanted = {0: [2, 3, 4], 1: [2, 3, 4, 5], 2: [], 3: [0], 4: [0, 1], 5: [], 6: [7]}
    np.testing.assert_array_equal(given, [[k in wanted[row] for k in range(8)] for row in range(7)])
    given = mask(parse("within(x, y, rows([-2]) & columns([-1]))"), 7, 8, batch_size=2, tensors=tensors)[0, 0]
    assert np.argwhere(given).tolist() == [[0, 5], [3, 1]]


def test_segments_on_two_sides():
    tensors = {"x": np.array([0, 2, 2, 5, 5]), "y": np.array([1, 4, 6, 8, 8])}
    given = mask(parse("within(segments(x), segments(y), causal)"), 7, 9, tensors=tensors)
    wanted = {0: [1, 2], 1: [1, 2, 3], 2: [], 3: [6], 4: [6, 7], 5: [], 6: []}
    np.testing.assert_array_equal(given, [[k in wanted[row] for k in range(9)] for row in range(7)])
    # an id beside segments is the number of one; what is in none equals nothing
    ids = np.array([-1, -2, 0, 2, 2, 1, 3])
    given = mask(parse("documents(x, segments(y))"), 7, 9, tensors={"x": ids, "y": tensors["y"]})
    wanted = {2: [1, 2, 3], 3: [6, 7], 4: [6, 7], 5: [4, 5]}
    np.testing.assert_array_equal(given, [[k in wanted.get(row, []) for k in range(9)] for row in range(7)])


def test_within_counts_from_the_document():
    starts = {3: 0, 1: 3, 0: 5, 7: 9}
    stops = {3: 3, 1: 5, 0: 9, 7: 10}

    def rule(q, k, n):
        if q < 0 or IDS[q] != IDS[k]:
            return False
        start, stop = starts[IDS[q]], stops[IDS[q]]
        return (q - start) // 2 == (k - start) // 2 or k == stop - 1 or k == start

    pattern = parse("within(d, chunk(2) | columns([0, -1]))")
    for q_len in (10, 3, 12):
        given = mask(pattern, q_len, 10, tensors={"d": np.array(IDS)})
        np.testing.assert_array_equal(given, by_hand(rule, q_len, 10))


def test_documents_of_a_batch():
    ids = np.array([IDS, IDS[::-1]])
    given = mask(parse("within(d, causal)"), 10, 10, batch_size=2, num_heads=3, tensors={"d": ids})
    assert given.shape == (2, 3, 10, 10)
    for b in range(2):
        want = by_hand(lambda q, k, n: ids[b][q] == ids[b][k] and k <= q, 10, 10)  # noqa: B023
        np.testing.assert_array_equal(given[b, 2], want)


def test_tensors():
    tokens = mask(parse("columns([t, 1])"), 3, 6, tensors={"t": np.array([4, -1, -9, 77])})
    np.testing.assert_array_equal(tokens, by_hand(lambda q, k, n: k in (4, 5, 1), 3, 6))
    single = mask(parse("columns(t)"), 3, 6, tensors={"t": np.int32(2)})
    np.testing.assert_array_equal(single, by_hand(lambda q, k, n: k == 2, 3, 6))
    batch = mask(parse("rows(t)"), 6, 6, batch_size=2, tensors={"t": np.array([[0, -1], [2, 99]])})
    np.testing.assert_array_equal(batch[:, 0, :, 0], [[1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]])
    valid = mask(parse("valid(n)"), 2, 5, batch_size=2, tensors={"n": torch.tensor([2, 9])})
    np.testing.assert_array_equal(valid[:, 0], [by_hand(lambda q, k, n: k < 2, 2, 5), np.ones((2, 5))])
    assert mask(parse("valid(n)"), 2, 5, tensors={"n": np.array(3)}).sum() == 6


def test_blocks():
    random = np.random.default_rng(0)
    table = random.integers(0, 2, (2, 3, 3, 4)).astype(np.bool_)
    given = mask(parse("blocks(t, 4)"), 15, 18, num_heads=3, batch_size=2, tensors={"t": table})
    for b, h in np.ndindex(2, 3):
        want = by_hand(lambda q, k, n: q // 4 < 3 and k // 4 < 4 and table[b, h, q // 4, k // 4], 15, 18)  # noqa: B023
        np.testing.assert_array_equal(given[b, h], want)
    assert mask(parse("blocks(t, 4)"), 15, 18, tensors={"t": table[0, 0]}).shape == (15, 18)


def test_where_reads_tensors():
    x, m = np.array([3, 1, 4, 1, 5]), np.arange(8).reshape(1, 2, 4) % 3 == 0
    given = mask(parse("where(x[k - 1] > s)"), 2, 5, tensors={"x": x, "s": np.array(2)})
    np.testing.assert_array_equal(given, by_hand(lambda q, k, n: x[max(k - 1, 0)] > 2, 2, 5))
    given = mask(parse("where(m[k])"), 2, 4, num_heads=2, tensors={"m": m})
    np.testing.assert_array_equal(given[0, 1], by_hand(lambda q, k, n: m[0, 1, k], 2, 4))


def test_listed_blocks():
    lists = np.array([[[2, 0, 3, -1], [0, -1, -1, -1]], [[3, 0, 1, 2], [1, 4, -1, -1]]], np.int32)
    blocks = [[{0, 3}, set()], [{0, 1, 2}, {4}]]
    sizes = {"num_heads": 4, "batch_size": 1, "tensors": {"x": lists[None]}}
    given = mask(parse("listed_blocks(x, 4)"), 10, 18, q_offset=0, **sizes)
    for head in range(4):  # heads 0, 1 and 2, 3 share lists; a third block of queries has none
        rows = [*blocks[head // 2], set()]
        np.testing.assert_array_equal(given[0, head], by_hand(lambda q, k, n, r=rows: k // 4 in r[q // 4], 10, 18, 0))
    one = mask(parse("listed_blocks(x, 4)"), 10, 18, tensors={"x": lists[0, :1]})
    np.testing.assert_array_equal(one, by_hand(lambda q, k, n: k // 4 in {0, 3}, 10, 18))
    before = mask(parse("listed_blocks(x, 4)"), 6, 4, tensors={"x": lists[0, :1]})
    assert before.any(1).tolist() == [False, False, True, True, True, True]


@pytest.mark.parametrize(("q_len", "q_offset"), [(12, None), (5, None), (3, None), (9, 2), (6, 10)])
def test_drafts(q_len, q_offset):
    ancestors, depth, n = [[0b1, 0b11, 0b101, 0b1011, 0b111], [0b1, 0b111, 0b10, 0, -1]], [0, 1, 1, 2, 9], 12
    older = {
        "causal & last(4)": lambda q, k: 0 <= q - k < 4,
        "chunk(3) | columns([1])": lambda q, k: q // 3 == k // 3 or k == 1,
        "strided(2) - rows([0, 8])": lambda q, k: (q - k) % 2 == 0 and q not in (0, 8),
    }
    for pattern, rule in older.items():
        tensors = {"a": np.array(ancestors), "d": np.array(depth)}
        given = mask(parse(f"draft(a, d, {pattern})"), q_len, n, q_offset=q_offset, batch_size=2, tensors=tensors)
        for b in range(2):

            def allowed(q, k, n, bits=ancestors[b], rule=rule):
                i, j = q - (n - 5), k - (n - 5)
                if i < 0:
                    return rule(q, k)
                if j >= 0:
                    return i < 5 and j <= i and bits[i] >> j & 1
                return rule(n - 5 + min(depth[min(i, 4)], i), k)

            np.testing.assert_array_equal(given[b, 0], by_hand(allowed, q_len, n, q_offset))


def test_a_chain_of_drafts_is_no_draft():
    tensors = {"a": 2 ** np.arange(1, 8) - 1, "d": np.arange(7)}
    for pattern in ("causal", "last(5)", "(last(3) | strided(4) | columns([2])) & causal"):
        given = mask(parse(f"draft(a, d, {pattern} | last(7))"), 20, 20, tensors=tensors)
        np.testing.assert_array_equal(given, mask(parse(f"{pattern} | last(7)"), 20, 20))


def test_random_blocks():
    given = mask(parse("random(2, block=3, seed=5)"), 20, 20, num_heads=2, batch_size=2)
    np.testing.assert_array_equal(given[0], given[1])
    assert (given[0, 0] != given[0, 1]).any()
    blocks = given[0, 0, ::3, ::3]
    assert blocks.sum(1).tolist() == [2] * 7
    np.testing.assert_array_equal(given[0, 0], blocks.repeat(3, 0).repeat(3, 1)[:20, :20])
    later = mask(parse("random(2, block=3, seed=5)"), 2, 20, num_heads=2)
    np.testing.assert_array_equal(later[0], given[0, :, -2:])
    past = mask(parse("random(2, block=3, past=true)"), 20, 20)[0, 0, ::3, ::3]
    assert past.sum(1).tolist() == [1, 2, 2, 2, 2, 2, 2]
    assert not np.triu(past, 1).any()
    assert mask(parse("random(1000, block=3)"), 20, 20).all()
    assert not mask(parse("random(3, past=true)"), 9, 5)[0, 0, :4].any()


@given(st.data(), patterns(), st.integers(0, 30), st.integers(0, 30))
def test_a_decode_step_is_the_last_row_of_a_prefill(data, pattern, q_len, kv_len):
    # lists of queries' documents are of the rows of one call
    documents = (getattr(part, "documents", None) for part in subexpressions(meaning(pattern)))
    assume(not any(one is not None and one.two_sided for one in documents))
    tensors = data.draw(tensors_for(pattern, q_len, kv_len, 2, 2))
    size = {"num_heads": 2, "batch_size": 2, "tensors": tensors}
    whole, part = mask(pattern, q_len, kv_len, **size), mask(pattern, q_len // 2, kv_len, **size)
    np.testing.assert_array_equal(whole[..., q_len - q_len // 2 :, :], part)
    np.testing.assert_array_equal(mask(pattern, q_len, kv_len, q_offset=kv_len - q_len, **size), whole)


def test_a_call_with_other_tensors_is_refused():
    with pytest.raises(SpattnError, match="does not give"):
        mask(parse("columns(t)"), 2, 2)
    with pytest.raises(SpattnError, match="reads no tensor"):
        mask(parse("causal"), 2, 2, tensors={"t": np.array([1])})
    with pytest.raises(SpattnError, match="float64"):
        mask(parse("columns(t)"), 2, 2, tensors={"t": np.array([1.5])})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("documents(t)", [0, 2, 4, 4, 5]),
        ("documents(t)", [0] * 11),
        ("documents(t)", [[0] * 12]),
        ("documents(t)", 3),
        ("documents(segments(t))", []),
        ("documents(segments(t))", [[0, 5, 12]]),
        ("documents(segments(t))", [0, 7, 5, 12]),
        ("within(t, segments(cu), causal)", [0] * 12),
        ("documents(segments(cu), t)", [0] * 9),
    ],
)
def test_documents_of_another_shape_are_refused(text, values):
    given = {"t": np.array(values, np.int64), "cu": np.array([0, 12])}
    pattern = parse(text)
    with pytest.raises(ArgumentError, match="^E060"):
        mask(pattern, 9, 12, batch_size=2, tensors={name: given[name] for name in free_names(pattern)})


def test_attention_is_softmax_over_the_allowed_keys():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 3)
    allowed = torch.rand(2, 4, 5, 7) < 0.5
    allowed[..., 0] = True
    out, lse = attention(q, k, v, allowed.numpy())
    want = torch.nn.functional.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), attn_mask=allowed, enable_gqa=True
    )
    torch.testing.assert_close(out, want)
    assert lse.shape == (2, 4, 5)
    zero, count = attention(q * 0, k, v, allowed.numpy())
    torch.testing.assert_close(count, allowed.sum(-1).double().log())
    assert zero.isfinite().all()


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_keys_that_are_not_allowed_never_matter(poison):
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8)
    allowed = np.tri(4, dtype=np.bool_)
    allowed[2] = False
    out, lse = attention(q, k, v, allowed)
    k[..., 3, :], v[..., 3, :] = poison, poison
    dirty, dirty_lse = attention(q, k, v, allowed)
    torch.testing.assert_close(dirty[..., :3, :], out[..., :3, :])
    torch.testing.assert_close(dirty_lse[..., :3], lse[..., :3])
    assert (out[..., 2, :] == 0).all()
    assert (lse[..., 2] == -torch.inf).all()
    assert dirty[..., 3, :].isnan().all()


def test_empty_lengths():
    out, lse = attention(
        torch.randn(1, 1, 3, 4), torch.randn(1, 1, 0, 4), torch.randn(1, 1, 0, 4), np.ones((3, 0), bool)
    )
    assert (out == 0).all()
    assert (lse == -torch.inf).all()
