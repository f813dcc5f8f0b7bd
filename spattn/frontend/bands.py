"""Atoms that look at the distance q - k, or at chunks of it."""

from __future__ import annotations

from spattn.expressions.algebra import conj, disj, eq, floordiv, le, lt, maximum, mod, sub
from spattn.expressions.nodes import FALSE, KV_LEN, TRUE, Bool, Expr, K, Q
from spattn.frontend.positions import is_offset
from spattn.frontend.spec import Arguments, AtomSpec, Kind, Parameter
from spattn.frontend.syntax import Integer

DILATION = Parameter("dilation", Kind.INTEGER, Integer(1), minimum=1, keyword_only=True)


def between(low: Expr | int | None, value: Expr, high: Expr | int | None) -> Bool:
    """`low <= value <= high`, both ends included; None: no bound."""
    lower = TRUE if low is None else le(low, value)
    return conj(lower, TRUE if high is None else le(value, high))


def _local(a: Arguments) -> Bool:
    left, right = (a.extent("w"), a.extent("w")) if "w" in a else (a.extent("left"), a.extent("right"))
    d = a.integer("dilation")
    low, high = None if right is None else -right * d, None if left is None else left * d
    return conj(between(low, sub(Q, K), high), eq(mod(sub(Q, K), d), 0))


def _last(a: Arguments) -> Bool:
    n, d = a.extent("n"), a.integer("dilation")
    high = None if n is None else n * d - 1
    return conj(between(0, sub(Q, K), high), eq(mod(sub(Q, K), d), 0))


def _chunk(a: Arguments) -> Bool:
    c, back, ahead = a.integer("c"), a.extent("back"), a.extent("ahead")
    return between(None if ahead is None else -ahead, sub(floordiv(Q, c), floordiv(K, c)), back)


def _fixed(a: Arguments) -> Bool:
    length, c = a.integer("l"), a.integer("c")
    return disj(eq(floordiv(Q, length), floordiv(K, length)), le(length - c, mod(K, length)))


BANDS = (
    AtomSpec("full", ((),), lambda _: TRUE, "Every pair."),
    AtomSpec("none", ((),), lambda _: FALSE, "No pair."),
    AtomSpec("causal", ((),), lambda _: le(K, Q), "The query's own key and earlier ones: k <= q."),
    AtomSpec("anticausal", ((),), lambda _: le(Q, K), "The query's own key and later ones: k >= q."),
    AtomSpec(
        "local",
        (
            (Parameter("w", Kind.EXTENT, minimum=0), DILATION),
            (Parameter("left", Kind.EXTENT, minimum=0), Parameter("right", Kind.EXTENT, minimum=0), DILATION),
        ),
        _local,
        "A window, both ends included: -right*d <= q - k <= left*d and (q - k) mod d = 0; local(w) is local(w, w).",
    ),
    AtomSpec(
        "last",
        ((Parameter("n", Kind.EXTENT, minimum=0), DILATION),),
        _last,
        "The last n keys, the query's own included: 0 <= q - k < n*d and (q - k) mod d = 0.",
    ),
    AtomSpec(
        "strided",
        ((Parameter("d", minimum=1),),),
        lambda a: eq(mod(sub(Q, K), a.integer("d")), 0),
        "Keys at multiples of d from the query: (q - k) mod d = 0.",
    ),
    AtomSpec(
        "diagonals",
        ((Parameter("offsets", Kind.OFFSETS),),),
        lambda a: is_offset(a.indices("offsets"), sub(Q, K), KV_LEN),
        "Keys at these distances: q - k in the set; a tensor's negative distances count from kv_len.",
    ),
    AtomSpec(
        "chunk",
        (
            (
                Parameter("c", minimum=1),
                Parameter("back", Kind.EXTENT, Integer(0), minimum=0),
                Parameter("ahead", Kind.EXTENT, Integer(0), minimum=0),
            ),
        ),
        _chunk,
        "Chunks of c tokens: -ahead <= q//c - k//c <= back.",
    ),
    AtomSpec(
        "fixed",
        ((Parameter("l", minimum=1), Parameter("c", minimum=0)),),
        _fixed,
        "Sparse Transformer's fixed pattern: q//l = k//l, or k mod l >= l - c.",
    ),
    AtomSpec("sink", ((Parameter("n", minimum=0),),), lambda a: lt(K, a.integer("n")), "The first n keys: k < n."),
    AtomSpec("prefix", ((Parameter("n", minimum=0),),), lambda a: lt(K, a.integer("n")), "The first n keys: k < n."),
    AtomSpec(
        "tail",
        ((Parameter("n", minimum=0),),),
        lambda a: conj(le(maximum(sub(KV_LEN, a.integer("n")), 0), Q), lt(Q, KV_LEN)),
        "The last n queries, whole: kv_len - n <= q < kv_len.",
    ),
)
