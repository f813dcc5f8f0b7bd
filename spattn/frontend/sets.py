"""Atoms that select keys, queries, heads and batch entries by sets."""

from __future__ import annotations

from spattn.errors import BindError
from spattn.expressions.algebra import disj, lt
from spattn.expressions.nodes import KV_LEN, B, Bool, H, K, Q, Sym
from spattn.frontend.positions import is_in
from spattn.frontend.spec import Arguments, AtomSpec, Kind, Parameter

SET = ((Parameter("tokens", Kind.INDICES),),)
NUMBERS = ((Parameter("numbers", Kind.NUMBERS),),)


def _columns(a: Arguments) -> Bool:
    return is_in(a.indices("tokens"), K, KV_LEN)


def _rows(a: Arguments) -> Bool:
    # a call may have rows past the keys
    return is_in(a.indices("tokens"), Q, KV_LEN, lt(Q, KV_LEN))


def _layers(a: Arguments) -> Bool:
    hint = "give the layer when compiling: layer=0"
    raise BindError("E042", "layers(..) needs the number of a layer", span=a.atom.span, label="which one?", hint=hint)


SETS = (
    AtomSpec("columns", SET, _columns, "Keys in the set: k in tokens."),
    AtomSpec("rows", SET, _rows, "Queries in the set, whole: q in tokens."),
    AtomSpec(
        "global",
        SET,
        lambda a: disj(_columns(a), _rows(a)),
        "Tokens that see all and are seen by all: k in tokens or q in tokens.",
    ),
    AtomSpec(
        "heads",
        NUMBERS,
        lambda a: is_in(a.indices("numbers"), H, Sym("num_heads")),
        "Heads in the set, whole: h in numbers. A pattern of some heads is an intersection: heads([0:8]) & local(128).",
    ),
    AtomSpec(
        "batch",
        NUMBERS,
        lambda a: is_in(a.indices("numbers"), B, Sym("batch_size")),
        "Batch entries in the set, whole: b in numbers.",
    ),
    AtomSpec(
        "layers",
        NUMBERS,
        _layers,
        "All pairs where the layer given when compiling is in the set, else none; layers count from 0.",
    ),
)
