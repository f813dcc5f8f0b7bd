"""Decode steps: each computes the row of the next query, in a call whose last key is that query's own.

A pattern is *decodable* if no row attends a key after it, and no row changes as the call grows. What isl cannot hold
(lists given at the call, tables, documents, random blocks, entries of tensors) is taken as true, so that more pairs
are allowed than the pattern allows, never fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from spattn.errors import NotDecodableError, UnsupportedError
from spattn.expressions.algebra import add, conj, disj, le, lt, negate, substitute_bool, symbols
from spattn.expressions.nodes import (
    FALSE,
    KV_LEN,
    TRUE,
    And,
    Bool,
    K,
    Member,
    Node,
    Not,
    Or,
    Q,
    Relative,
    Sym,
    Tokens,
)
from spattn.relation.abstraction import MAX_TOKENS
from spattn.relation.affine import is_affine, isl_text
from spattn.relation.frames import points
from spattn.relation.proofs import least_point, proof_sets, witness
from spattn.relation.terms import of_distance
from spattn.relation.witness import Witness

STEP: Mapping[Node, Node] = {KV_LEN: add(Q, 1)}
"""The length in the call of a decode step."""
SIZES = (("num_heads", "h"), ("batch_size", "b"))
AHEAD = "decode steps have no later keys; `& causal` leaves them out"
UNSTABLE = "a decode step cannot know how long the call becomes: count positions from the start, not from the end"


@dataclass(frozen=True)
class Steps:
    """A pattern as decode steps see it.

    Attributes:
        allowed: The pairs of a query at q with the keys up to it; affine, over q, k, heads and batch entries.
        assumed: What was taken as true.
    """

    allowed: Bool
    assumed: tuple[Bool, ...]


def steps(condition: Bool) -> Steps:
    """The rows of a pattern, each in the call of its own decode step.

    Raises:
        NotDecodableError: E062, a row attends a key after it, or changes as the call grows.
        UnsupportedError: E096, that was neither proved nor refuted.
        MissingDependencyError: islpy is not installed.
    """
    assumed: dict[Bool, None] = {}
    pairs = _relaxed(condition, assumed)
    _refuse_ahead(condition, pairs, bool(assumed))
    # where only the relaxed pattern has keys after a query, the pattern itself is proved to have none
    pairs = conj(pairs, le(K, Q))
    _refuse_unstable(pairs, tuple(assumed))
    return Steps(conj(substitute_bool(pairs, STEP), le(0, K), heads(symbols(pairs))), tuple(assumed))


def heads(names: Iterable[str]) -> Bool:
    """What holds of the heads and batch entries among `names`."""
    used = set(names)
    facts = (conj(le(0, Sym(index)), lt(Sym(index), Sym(size))) for size, index in SIZES if used & {size, index})
    return conj(*facts)


def head_names(names: Iterable[str]) -> list[str]:
    """Sizes and indices of heads and batch entries that are needed to speak of `names`."""
    used = set(names)
    return [name for pair in SIZES if used & {*pair} for name in pair]


def pair_at(point: Mapping[str, int], kv_len: int) -> Witness:
    """The pair at a point, in a call with `kv_len` keys."""
    return Witness(
        kv_len,
        point["q"],
        point["k"],
        head=point.get("h", 0),
        batch=point.get("b", 0),
        num_heads=point.get("num_heads", 1),
        batch_size=point.get("batch_size", 1),
    )


def _relaxed(condition: Bool, assumed: dict[Bool, None], framed: bool = False) -> Bool:
    """A condition for isl that holds wherever `condition` may; `framed` where positions count from a document's start.

    Args:
        condition: As written.
        assumed: Takes what is replaced by true.
        framed: Keep only what speaks of distances: these are the same from every start.
    """
    condition = _with_points(condition)
    match condition:
        case _ if is_affine(condition) and (not framed or of_distance(condition)):
            return condition
        case And(args):
            return conj(*(_relaxed(arg, assumed, framed) for arg in args))
        case Or(args):
            return disj(*(_relaxed(arg, assumed, framed) for arg in args))
        case Not(And(args)):
            return disj(*(_relaxed(negate(arg), assumed, framed) for arg in args))
        case Not(Or(args)):
            return conj(*(_relaxed(negate(arg), assumed, framed) for arg in args))
        case Not(Relative() as frame):
            return _relaxed(replace(frame, inner=negate(frame.inner)), assumed, framed)
        case Relative(documents, inner) if not documents.two_sided:
            within: dict[Bool, None] = {}
            kept = _relaxed(inner, within, framed=True)
            assumed.update({condition: None} if within else {})
            return kept
    assumed[condition] = None
    known = TRUE if framed else _implied(condition)
    return known if is_affine(known) else TRUE


def _with_points(condition: Bool) -> Bool:
    """Membership in few constant tokens as comparisons, negated or not."""
    match condition:
        case Not(Member() as test):
            return negate(_with_points(test))
        case Member(position, tokens, length) if tokens.values and len(tokens.values) <= MAX_TOKENS:
            given = Member(position, Tokens((), tokens.tensors), length) if tokens.tensors else FALSE
            return disj(points(position, tokens.values, length), given)
    return condition


def _implied(guard: Bool) -> Bool:
    """What is known where a guard holds."""
    match guard:
        case Member(position, Tokens(values, ()), _) if min(values, default=-1) >= 0:
            return conj(le(min(values), position), le(position, max(values)))
    return TRUE


def _refuse_ahead(condition: Bool, pairs: Bool, assumed: bool) -> None:
    """Raises if a row attends a key after it."""
    later = conj(pairs, le(0, Q), lt(Q, K), lt(K, KV_LEN))
    point = _least(later, FALSE)
    if point is None:
        return
    found: Witness | None = pair_at(point, point["kv_len"])
    if assumed:
        found = witness(conj(condition, lt(Q, K)))
    if found is not None:
        raise NotDecodableError(f"{_query(found)} attends key {found.k}, which comes after it", found, hint=AHEAD)


def _refuse_unstable(pairs: Bool, assumed: tuple[Bool, ...]) -> None:
    """Raises if a row changes as the call grows."""
    if "kv_len" not in symbols(pairs):
        return
    inside = conj(le(0, K), le(0, Q), lt(Q, KV_LEN))
    longer, step = conj(pairs, inside), conj(substitute_bool(pairs, STEP), inside)
    for include, exclude in ((longer, step), (step, longer)):
        point = _least(include, exclude)
        if point is None:
            continue
        own, more = point["q"] + 1, point["kv_len"]
        there, absent = (more, own) if include is longer else (own, more)
        found = replace(pair_at(point, more), first=include is step)
        message = (
            f"{_query(found)} attends key {found.k} among {there} key{'s' if there > 1 else ''}, and not among {absent}"
        )
        if assumed:
            message += ", with lists, tables and documents taken as true"
        raise NotDecodableError(message, found, (own, more), hint=UNSTABLE)


def _query(found: Witness) -> str:
    head = f" of head {found.head} of {found.num_heads}" if found.num_heads > 1 else ""
    batch = f" of batch entry {found.batch} of {found.batch_size}" if found.batch_size > 1 else ""
    return f"query {found.q}{head}{batch}"


def _least(include: Bool, exclude: Bool) -> dict[str, int] | None:
    """The first pair in one condition and not in the other, few keys first.

    Raises:
        UnsupportedError: E096, isl met its cap.
    """
    used = symbols(include) | symbols(exclude)
    names = ["kv_len", *head_names(used), "q", "k"]
    if used - {*names}:
        raise UnsupportedError("E096", "the pattern has a part that the proofs cannot express")
    sets, known = proof_sets(), conj(include, heads(used))
    if known == FALSE:
        return None
    head = f"[{', '.join(names)}]"
    return least_point(
        sets,
        names,
        lambda: sets.set(f"{{ {head} : {isl_text(known)} }}").subtract(sets.set(f"{{ {head} : {isl_text(exclude)} }}")),
    )
