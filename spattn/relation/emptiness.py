"""Rows without keys: is there one, for some length?

The condition is replaced by a stricter one that isl can hold: what a list, a table or a document test may leave out
counts as left out. If even so each row has a key, each row has one; else the row found is looked at in a real call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spattn.errors import SpattnError
from spattn.expressions.algebra import conj, disj, eq, negate, substitute_bool, symbols
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import FALSE, TRUE, And, Bool, InTable, Member, Node, Not, Or, RandomTable, SameSegment
from spattn.expressions.tensors import Tensors
from spattn.relation.abstraction import Abstraction, Assignment, is_position, random_blocks_known
from spattn.relation.affine import isl, isl_text
from spattn.relation.proofs import least_point, proof_sets
from spattn.relation.witness import Witness, witness_at

if TYPE_CHECKING:
    IslSet = Any


@dataclass(frozen=True)
class EmptyRow:
    """A row q of a call with kv_len queries and keys.

    Attributes:
        call: The call; its k means nothing.
        certain: The row has no key in this call. Else only: no key is sure to be there, whatever lists, tables,
            documents and random blocks hold.
    """

    call: Witness
    certain: bool

    @property
    def q(self) -> int:
        """The row."""
        return self.call.q

    @property
    def kv_len(self) -> int:
        """Number of queries and keys."""
        return self.call.kv_len


def empty_rows(condition: Bool) -> EmptyRow | None:
    """A row 0 <= q < kv_len = q_len without keys, None if for every length each row has one.

    Raises:
        UnsupportedError: E096, the proof takes more steps than it may.
        MissingDependencyError: islpy is not installed.
    """
    if condition == TRUE:
        return None
    abstraction = Abstraction.of(condition)
    certain = sure(abstraction.conditions[0], abstraction)
    # no guard is left in it; in the call that is tried, none holds
    assignment = Assignment(dict.fromkeys(abstraction.guards, False), abstraction.domain())
    point = _least_empty(abstraction, abstraction.affine(certain, assignment))
    if point is None:
        return None
    call = witness_at(point, assignment, abstraction, True)
    return EmptyRow(call, _is_empty(condition, call))


def _least_empty(abstraction: Abstraction, certain: Bool) -> dict[str, int] | None:
    sets = proof_sets()
    names = abstraction.names()
    inner = [name for name in names if name != "k"]
    place = names.index("k")

    def rows(condition: Bool) -> IslSet:
        points = sets.set(f"{{ [{', '.join(names)}] : {isl_text(condition)} }}")
        return sets.explicit(points.project_out(isl.dim_type.set, place, 1))

    domain = abstraction.domain()
    return least_point(sets, inner, lambda: rows(domain).subtract(rows(conj(domain, certain))))


def sure(condition: Bool, abstraction: Abstraction) -> Bool:
    """A condition without guards under which the pair is allowed whatever these are."""
    match condition:
        case And(args):
            return conj(*(sure(arg, abstraction) for arg in args))
        case Or(args):
            return disj(*(sure(arg, abstraction) for arg in args))
        case Not(Member() | InTable() | SameSegment()):
            return FALSE
        case Not(And() | Or()):
            return sure(_pushed(condition), abstraction)
        case SameSegment(documents, left, right) if documents.plain:
            return conj(is_position(left), eq(left, right))
        case InTable(RandomTable(), _, _):
            return conj(*random_blocks_known(condition))
        case InTable() | Member() | SameSegment():
            return FALSE
    return FALSE if _varies(condition, abstraction) else condition


def _pushed(condition: Not) -> Bool:
    """A negated `and` or `or` by De Morgan's law."""
    assert isinstance(condition.arg, And | Or)
    parts = [negate(arg) for arg in condition.arg.args]
    return disj(*parts) if isinstance(condition.arg, And) else conj(*parts)


def _varies(condition: Bool, abstraction: Abstraction) -> bool:
    """Does it read a number that may differ from key to key?"""
    with_key = {number for number in abstraction.numbers if "k" in symbols(number)}
    known: dict[Node, Node] = {number: symbol for number, symbol in abstraction.numbers.items() if number in with_key}
    return bool(with_key) and substitute_bool(condition, known) != condition


def _is_empty(condition: Bool, call: Witness) -> bool:
    try:
        tensors = Tensors(call.arrays, call.kv_len, call.batch_size, call.num_heads)
        return not evaluate(condition, {**call.env, "k": np.arange(call.kv_len)}, tensors).any()
    except SpattnError:
        return False
