"""What holds of patterns for all lengths: equality, containment, emptiness, each with evidence against it.

The domain is 0 <= q < kv_len and 0 <= k < kv_len for every kv_len >= 1, and 0 <= h < num_heads, 0 <= b < batch_size.
Tensors may hold anything that their kind allows. isl decides; a witness is checked against the meaning before it is
handed out. Where neither a proof nor a witness is found that is said, as an error: no answer is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from spattn.errors import MissingDependencyError, UnsupportedError
from spattn.expressions.algebra import conj, disj, negate, subexpressions, symbols
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import (
    FALSE,
    And,
    BitTable,
    Bool,
    GivenTable,
    InTable,
    ListedTable,
    Member,
    Or,
    Read,
    SameSegment,
)
from spattn.expressions.tensors import Tensors
from spattn.frontend.meaning import disjuncts, meaning
from spattn.frontend.syntax import Node
from spattn.relation import affine
from spattn.relation.abstraction import Abstraction, Assignment
from spattn.relation.affine import Sets, isl_text
from spattn.relation.witness import Witness, holds_at, witness_at

if TYPE_CHECKING:
    IslSet = Any

T = TypeVar("T")
OPERATIONS = 2_000_000  # about a second at most; an ordinary question needs a thousandth
TOO_LONG = "it needs more steps than a proof may take"
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 17, 33, 65, 130, 260, 520)
"""Where a pair is looked for if isl's own do not stand the check; those of isl's pairs are added up to LONGEST."""
LONGEST = 4096


def equals(a: Bool, b: Bool) -> bool:
    """Do two conditions allow the same pairs, for all lengths and tensors?

    Raises:
        UnsupportedError: E096, neither proved nor refuted.
        MissingDependencyError: islpy is not installed.
    """
    return difference_witness(a, b) is None


def contains(a: Bool, b: Bool) -> bool:
    """Does `a` allow all pairs that `b` allows? Raises as `equals` does."""
    return witness(conj(b, negate(a))) is None


def is_empty(condition: Bool) -> bool:
    """Does `condition` allow no pair, whatever the length? Raises as `equals` does."""
    return witness(condition) is None


def difference_witness(a: Bool, b: Bool) -> Witness | None:
    """A call with few keys and a pair that exactly one of two conditions allows; None if there is none."""
    if a == b:
        return None
    abstraction = Abstraction.of(a, b)
    one, other = abstraction.conditions
    found: list[Witness | None] = []
    doubts: list[UnsupportedError] = []
    for include, exclude, first in ((one, other, True), (other, one, False)):
        try:
            found.append(_first(abstraction, include, exclude, first))
        except UnsupportedError as error:
            doubts.append(error)
    if doubts and not any(found):
        raise doubts[0]
    return min((w for w in found if w is not None), key=_size, default=None)


def witness(condition: Bool) -> Witness | None:
    """A call with few keys and a pair that `condition` allows; None if there is none."""
    if condition == FALSE:
        return None
    abstraction = Abstraction.of(condition)
    return _first(abstraction, abstraction.conditions[0], FALSE, True)


def dead_terms(node: Node) -> tuple[Node, ...]:
    """The terms of the outermost union that add nothing to the others: all of them can go at once."""
    kept = list(disjuncts(node))
    dead: list[Node] = []
    for term in reversed(disjuncts(node)):
        others = [other for other in kept if other is not term]
        if contains(disj(*map(meaning, others)), meaning(term)):
            kept, dead = others, [term, *dead]
    return tuple(dead)


def _size(found: Witness) -> tuple[int, ...]:
    return found.kv_len, found.num_heads, found.batch_size, found.q, found.k


def _first(abstraction: Abstraction, include: Bool, exclude: Bool, first: bool) -> Witness | None:
    """A pair in `include` and not in `exclude`, smallest lengths first.

    Raises:
        UnsupportedError: There may be one, but none stands the check.
    """
    sets = proof_sets()
    include, exclude = _without_common(include, exclude)
    checked: list[Witness] = []
    doubt, lengths = "", set(LENGTHS)
    for assignment in abstraction.assignments():
        try:
            point = _least_point(sets, abstraction, assignment, include, exclude)
        except _Capped:
            doubt = TOO_LONG
            continue
        if point is None:
            continue
        found = witness_at(point, assignment, abstraction, first)
        if holds_at(include, found) and holds_at(exclude, found) is False:
            checked.append(found)
        else:
            lengths |= {found.kv_len} if found.kv_len <= LONGEST else set()
            doubt = doubt or "it depends on which values tensors, random blocks or products take together"
    if checked or not doubt:
        return min(checked, key=_size, default=None)
    seen = _searched(conj(include, negate(exclude)), first, sorted(lengths))
    if seen is None:
        raise UnsupportedError("E096", f"neither proved nor refuted: {doubt}")
    return seen


def _without_common(include: Bool, exclude: Bool) -> tuple[Bool, Bool]:
    """Two conditions with the same difference: (A|C) - (B|C) = A - (B|C), and (A&C) - (B&C) = (A&C) - B."""
    match exclude:
        case Or(args):
            terms = include.args if isinstance(include, Or) else (include,)
            return disj(*(term for term in terms if term not in args)), exclude
        case And(args) if isinstance(include, And):
            return include, conj(*(arg for arg in args if arg not in include.args))
    return include, exclude


class _Capped(Exception):
    """isl met its cap."""


def proof_sets() -> Sets:
    """isl with the cap of a proof.

    Raises:
        MissingDependencyError: islpy is not installed.
    """
    if not affine.available:
        message = "a proof about patterns needs islpy, which is not installed"
        raise MissingDependencyError("E050", message, hint="pip install islpy; there is no wheel for Windows")
    return Sets(OPERATIONS)


def _asked(sets: Sets, what: str, question: Callable[[], T]) -> T:
    answer = sets.ask(what, lambda: (question(),))
    if answer is None:
        raise _Capped
    return answer[0]


def _set(sets: Sets, names: Sequence[str], condition: Bool) -> IslSet:
    return sets.set(f"{{ [{', '.join(names)}] : {isl_text(condition)} }}")


def _least_point(
    sets: Sets, abstraction: Abstraction, assignment: Assignment, include: Bool, exclude: Bool
) -> dict[str, int] | None:
    inside = conj(assignment.facts, abstraction.affine(include, assignment))
    outside = abstraction.affine(exclude, assignment)
    if inside == FALSE:
        return None
    names = abstraction.names()
    return _least(sets, names, lambda: _set(sets, names, inside).subtract(_set(sets, names, outside)))


def least_point(sets: Sets, names: Sequence[str], question: Callable[[], IslSet]) -> dict[str, int] | None:
    """The lexicographically first point of a set, any point where that is too hard, None if the set is empty.

    Raises:
        UnsupportedError: E096, isl met its cap.
    """
    try:
        return _least(sets, names, question)
    except _Capped:
        raise UnsupportedError("E096", f"neither proved nor refuted: {TOO_LONG}") from None


def _least(sets: Sets, names: Sequence[str], question: Callable[[], IslSet]) -> dict[str, int] | None:
    points = _asked(sets, "points", question)
    if _asked(sets, "emptiness", points.is_empty):
        return None
    least = sets.ask("least point", lambda: points.lexmin().sample_point())
    point = _asked(sets, "point", points.sample_point) if least is None else least
    kind = affine.isl.dim_type.set
    return {name: int(point.get_coordinate_val(kind, i).to_python()) for i, name in enumerate(names)}


def _searched(condition: Bool, first: bool, lengths: Sequence[int]) -> Witness | None:
    """A pair by trial, where the condition reads no tensor."""
    if any(_is_given(part) for part in subexpressions(condition)):
        return None
    drawn = any(isinstance(part, InTable) for part in subexpressions(condition))
    sizes = {"batch_size": 1 + ("b" in symbols(condition)), "num_heads": 1 + (drawn or "h" in symbols(condition))}
    for kv_len in lengths:
        shape = (*sizes.values(), kv_len, kv_len)
        b, h, q, k = np.ogrid[tuple(slice(size) for size in shape)]
        env = {"kv_len": kv_len, "b": b, "h": h, "q": q, "k": k, **sizes}
        found = np.argwhere(np.broadcast_to(evaluate(condition, env, Tensors({}, kv_len, *shape[:2])), shape))
        if len(found):
            entry, head, row, key = map(int, found[0])
            return Witness(kv_len, row, key, head, entry, shape[1], shape[0], first=first)
    return None


def _is_given(part: object) -> bool:
    match part:
        case Read() | SameSegment() | InTable(GivenTable() | ListedTable() | BitTable(), _, _):
            return True
        case Member(_, tokens, _):
            return bool(tokens.tensors)
    return False
