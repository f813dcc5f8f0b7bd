"""Keys that a call does not give: does a row attend one, for certain?

That is asked of each pattern once, with all lengths and offsets as parameters; a call puts its numbers into the answer.
What a list, a table, a document test or a tensor's entry may leave out counts as left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from spattn.errors import UnsupportedError
from spattn.expressions.algebra import conj, disj, le, lt, substitute_bool, symbols
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import FALSE, KV_LEN, And, Bool, Int, K, Node, Or, Q, Sym
from spattn.expressions.tensors import NOTHING
from spattn.relation import affine
from spattn.relation.abstraction import Abstraction, Assignment
from spattn.relation.affine import Sets, TooHard, isl_text
from spattn.relation.emptiness import sure
from spattn.relation.proofs import least_point, proof_sets

if TYPE_CHECKING:
    from spattn.call.positions import Positions

    IslSet = Any

ROW_BEGIN, ROW_END, KEY_BEGIN, KEY_END = map(Sym, ("row_begin", "row_end", "key_begin", "key_end"))
PARAMETERS = ("row_begin", "row_end", "key_begin", "key_end", "kv_len", "num_heads", "batch_size")
VARIABLES = ("q", "k", "h", "b")
MAX_PAIRS = 1 << 24
"""Of a call that is looked at pair by pair, where isl does not answer for all calls."""
BAND = 1 << 20

Pair = tuple[int, int]


def missing_key(condition: Bool, at: Positions, num_heads: int, batch_size: int) -> Pair | None:
    """Positions of a row and of a key that it attends and that is not given; None if none is certain to be.

    Args:
        condition: The pattern's.
        at: Where rows and keys stand, all in numbers.
        num_heads: Query heads.
        batch_size: Batch entries.

    Raises:
        UnsupportedError: E096, that takes too long to find.
    """
    return _missing_key(condition, (at.q_offset, at.q_offset + at.q_len, *at.given, at.kv_len, num_heads, batch_size))


@lru_cache(maxsize=1024)
def _missing_key(condition: Bool, numbers: tuple[int, ...]) -> Pair | None:
    wanted = _wanted(condition)
    if wanted == FALSE:
        return None
    lengths = dict(zip(PARAMETERS, numbers, strict=True))
    answer = _answer(wanted)
    if answer is None:
        return _searched(wanted, lengths)
    return _least(wanted, lengths) if bool(evaluate(answer, lengths, NOTHING)) else None


@lru_cache(maxsize=256)
def _wanted(condition: Bool) -> Bool:
    """Where a row is certain to attend a key that is not given, over `VARIABLES` and `PARAMETERS`; affine."""
    try:
        abstraction = Abstraction.of(condition)
        assignment = Assignment(dict.fromkeys(abstraction.guards, False), abstraction.domain())
        allowed = abstraction.affine(_certain(sure(abstraction.conditions[0], abstraction), abstraction), assignment)
    except UnsupportedError:
        return FALSE  # it reads so much that nothing is certain
    rows = [le(ROW_BEGIN, Q), lt(Q, ROW_END)]
    keys = [le(0, K), lt(K, KV_LEN), disj(lt(K, KEY_BEGIN), le(KEY_END, K))]
    heads = [le(0, Sym("h")), lt(Sym("h"), Sym("num_heads")), le(0, Sym("b")), lt(Sym("b"), Sym("batch_size"))]
    return conj(allowed, *rows, *keys, *heads)


def _certain(condition: Bool, abstraction: Abstraction) -> Bool:
    """A stricter condition that holds whatever numbers tensors hold."""
    match condition:
        case And(args):
            return conj(*(_certain(arg, abstraction) for arg in args))
        case Or(args):
            return disj(*(_certain(arg, abstraction) for arg in args))
    known: dict[Node, Node] = dict(abstraction.numbers)
    return FALSE if substitute_bool(condition, known) != condition else condition


@lru_cache(maxsize=256)
def _answer(wanted: Bool) -> Bool | None:
    """For which `PARAMETERS` there is such a pair; None where isl does not find out."""
    if not affine.available:
        return None
    sets = Sets()

    def question() -> Bool:
        names, over = ", ".join(PARAMETERS), ", ".join(VARIABLES)
        pairs = sets.set(f"[{names}] -> {{ [{over}] : {isl_text(wanted)} }}")
        lengths = sets.explicit(pairs.params()).coalesce()
        context = sets.set(f"[{names}] -> {{ : row_begin < row_end and key_begin <= key_end }}")
        return sets.parameters_condition(lengths, context.params())

    try:
        found = sets.ask("missing keys", question)
    except TooHard:
        return None
    return found if found is None or symbols(found) <= {*PARAMETERS} else None


def _least(wanted: Bool, lengths: dict[str, int]) -> Pair | None:
    """The first row that attends such a key, and its first."""
    known: dict[Node, Node] = {Sym(name): Int(value) for name, value in lengths.items()}
    here, sets = substitute_bool(wanted, known), proof_sets()
    if here == FALSE:
        return None
    point = least_point(sets, VARIABLES, lambda: sets.set(f"{{ [{', '.join(VARIABLES)}] : {isl_text(here)} }}"))
    return None if point is None else (point["q"], point["k"])


def _searched(wanted: Bool, lengths: dict[str, int]) -> Pair | None:
    """The same pair by pair.

    Raises:
        UnsupportedError: E096, there are too many.
    """
    q = np.arange(lengths["row_begin"], lengths["row_end"])
    given = np.arange(lengths["kv_len"])
    k = given[(given < lengths["key_begin"]) | (given >= lengths["key_end"])]
    heads = lengths["num_heads"] if "h" in symbols(wanted) else 1
    if len(q) * len(k) * heads > MAX_PAIRS:
        hint = 'missing_keys="ignore" computes over those that are given'
        message = "whether a row attends a key that is not given takes too long to find"
        raise UnsupportedError("E096", message, hint=hint)
    env = {**lengths, "h": np.arange(heads)[:, None, None], "b": 0, "k": k[None, :]}
    step = max(BAND // max(len(k) * heads, 1), 1)
    for first in range(0, len(q), step):
        rows = q[first : first + step]
        found = np.broadcast_to(evaluate(wanted, {**env, "q": rows[:, None]}, NOTHING), (heads, len(rows), len(k)))
        if found.any():
            row, key = np.argwhere(found.any(0))[0]
            return int(rows[row]), int(k[key])
    return None
