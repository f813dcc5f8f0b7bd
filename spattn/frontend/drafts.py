"""Patterns once drafted tokens are ordinary ones: what decides which keys later queries need."""

from __future__ import annotations

from spattn.errors import UnsupportedError
from spattn.expressions.algebra import subexpressions, symbols
from spattn.expressions.nodes import Length
from spattn.frontend.meaning import meaning
from spattn.frontend.syntax import Atom, Intersection, Node, Union

POSITIONS = {"q", "k", "kv_len"}


def settled(node: Node) -> Node:
    """`node` with A for each `draft(.., A)`.

    A drafted row is a row of A that stands among the last m positions, which is all that this says of it. So whoever
    drafts m tokens, and takes back those that are refused, keeps what A needs with m tokens taken back.

    Raises:
        UnsupportedError: E062, a draft is cut or negated by what speaks of positions: its rows are none of A's then.
    """
    if not _drafts(node):
        return node
    match node:
        case Union(operands):
            return Union(tuple(map(settled, operands)), span=node.span)
        case Intersection(operands):
            beside = [one for one in operands if not _drafts(one)]
            if len(beside) >= len(operands) - 1 and not any(symbols(meaning(one)) & POSITIONS for one in beside):
                return Intersection(tuple(map(settled, operands)), span=node.span)
        case Atom("draft", arguments):
            (pattern,) = (one.value for one in arguments if one.parameter == "A")
            assert isinstance(pattern, Node)
            return pattern
    raise UnsupportedError(
        "E062",
        "which keys drafted tokens leave needed is not known of a draft that is cut or negated",
        span=node.span,
        hint="write it inside: draft(ancestors, depth, A & B)",
    )


def _drafts(node: Node) -> bool:
    return any(isinstance(part, Length) for part in subexpressions(meaning(node)))
