"""Atoms that read tensors given at each call, or draw their blocks."""

from __future__ import annotations

from spattn.expressions.algebra import (
    add,
    conj,
    disj,
    floordiv,
    le,
    lt,
    maximum,
    minimum,
    same_document,
    select,
    sub,
    substitute_bool,
    whole,
)
from spattn.expressions.nearby import nearby
from spattn.expressions.nodes import (
    KV_LEN,
    MAX_BITS,
    B,
    BitTable,
    Bool,
    GivenTable,
    InTable,
    K,
    Length,
    ListedTable,
    Q,
    RandomTable,
    Read,
    Relative,
)
from spattn.frontend.arithmetic import condition
from spattn.frontend.spec import Arguments, AtomSpec, Kind, Parameter
from spattn.frontend.syntax import Flag, Integer


def _random(a: Arguments) -> Bool:
    block = a.integer("block")
    key_blocks = floordiv(add(KV_LEN, block - 1), block)
    table = RandomTable(a.integer("n"), a.integer("seed"), a.flag("past"), key_blocks)
    return InTable(table, floordiv(Q, block), floordiv(K, block))


def _within(a: Arguments) -> Bool:
    documents = a.documents()
    return conj(same_document(documents), Relative(documents, a.pattern("A")))


def _blocks(a: Arguments) -> Bool:
    size = a.integer("size")
    return InTable(GivenTable(a.word("table")), floordiv(Q, size), floordiv(K, size))


def _listed_blocks(a: Arguments) -> Bool:
    size = a.integer("size")
    return InTable(ListedTable(a.word("lists")), floordiv(Q, size), floordiv(K, size))


def _draft(a: Arguments) -> Bool:
    depth, pattern = a.word("depth"), a.pattern("A")
    first = sub(KV_LEN, Length(depth))
    index = sub(Q, first)
    farthest = MAX_BITS - 1
    # a depth is 0 .. index, so that q moves back, less far than there are bits
    down = maximum(minimum(Read(depth, (index,)), index, farthest), 0)
    at = select(le(first, Q), add(first, down), Q)
    older = conj(lt(minimum(Q, K), first), substitute_bool(pattern, {Q: at}))
    drafted = InTable(BitTable(a.word("ancestors")), index, sub(K, first))
    # where it may hold, affine, so that walks have bounds; then whether it does
    near = disj(nearby(pattern, farthest), conj(le(sub(KV_LEN, MAX_BITS), K), le(K, Q)))
    return conj(near, whole(disj(older, conj(le(K, Q), drafted))))


IDS = Parameter("ids", Kind.DOCUMENTS)
SIDES = (Parameter("q_ids", Kind.QUERY_DOCUMENTS), Parameter("k_ids", Kind.DOCUMENTS))
TABLES = (
    AtomSpec(
        "random",
        (
            (
                Parameter("n", minimum=0),
                Parameter("block", Kind.INTEGER, Integer(64), minimum=1, keyword_only=True),
                Parameter("seed", Kind.INTEGER, Integer(0), minimum=0, keyword_only=True),
                Parameter("past", Kind.FLAG, Flag(False), keyword_only=True),
            ),
        ),
        _random,
        "k's block is one of n distinct blocks drawn for q's block and head by Philox keyed with the seed; where there "
        "are fewer, all; past=true draws among the blocks up to q's own.",
        outermost=True,
    ),
    AtomSpec(
        "documents",
        ((IDS,), SIDES),
        lambda a: same_document(a.documents()),
        "Tokens of one document: ids[q] = ids[k], or q_ids[i] = k_ids[k] for row i; ids are one a key (a row), or "
        "segments(cu), by which document i is cu[i] .. cu[i+1]-1 and what is outside of all sees nothing.",
        outermost=True,
    ),
    AtomSpec(
        "within",
        ((IDS, Parameter("A", Kind.PATTERN)), (*SIDES, Parameter("A", Kind.PATTERN))),
        _within,
        "Tokens of one document, and A on positions counted from the document's start; with two lists the last query "
        "of a document stands at its last key.",
        outermost=True,
    ),
    AtomSpec(
        "blocks",
        ((Parameter("table", Kind.BLOCKS), Parameter("size", Kind.INTEGER, Integer(64), minimum=1)),),
        _blocks,
        "Blocks marked in a tensor: table[b, h, q//size, k//size].",
        outermost=True,
    ),
    AtomSpec(
        "listed_blocks",
        ((Parameter("lists", Kind.LISTS), Parameter("size", Kind.INTEGER, Integer(64), minimum=1)),),
        _listed_blocks,
        "Blocks in a list: lists[b, h, q//size] is how many k//size it has, then these, ascending, then -1; a single "
        "list serves all queries, and a head of k and v all that share it.",
        outermost=True,
    ),
    AtomSpec(
        "draft",
        (
            (
                Parameter("ancestors", Kind.ANCESTORS),
                Parameter("depth", Kind.DEPTHS),
                Parameter("A", Kind.PATTERN),
            ),
        ),
        _draft,
        "The last m positions are a tree of drafted tokens: i has those j <= i whose bit is in ancestors[i], and older "
        "keys where A holds for q = kv_len - m + depth[i]; earlier queries have A.",
        outermost=True,
    ),
    AtomSpec(
        "valid",
        ((Parameter("lengths", Kind.LENGTHS),),),
        lambda a: lt(K, Read(a.word("lengths"), (B,))),
        "Keys before the end of their batch entry: k < lengths[b].",
    ),
    AtomSpec(
        "where",
        ((Parameter("condition", Kind.CONDITION),),),
        lambda a: condition(a.values["condition"]),
        "Arithmetic in q, k, h, b, kv_len, num_heads, batch_size, integers and names: + - * // %, abs, min, max, "
        "comparisons, and, or, not, t[k].",
    ),
)
