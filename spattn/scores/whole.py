"""Which numbers of a score are whole, and how large they get: the same for whatever evaluates or prints it.

Whole numbers have 64 bits, in which positions are exact. What may pass these, or divides, or is read, is a float.
"""

from __future__ import annotations

from collections.abc import Mapping

from spattn.expressions.width import LONGEST
from spattn.scores.nodes import Expression, Function, Infix, Number, Read, Variable, children

BITS_32, BITS_64 = 2**31, 2**63
BOUNDS: Mapping[str, int] = {"q": LONGEST - 1, "k": LONGEST - 1, "h": BITS_32 - 1, "b": BITS_32 - 1}
"""What no name of a call passes, whatever its sign: positions are below `LONGEST`, sizes have 32 bits."""

_FLOATS = ("exp", "tanh", "log", "less")


def bound(node: Expression, names: Mapping[str, int] = BOUNDS) -> int | None:
    """What no whole number that comes up in `node` passes, whatever its sign; None if its value is a float.

    Args:
        node: Arithmetic, that of derivatives too.
        names: The bounds of variables that are whole.
    """
    parts = [bound(part, names) for part in children(node)]
    given = [part for part in parts if part is not None]
    if len(given) < len(parts):
        return None
    found: int | None
    match node:
        case Number(value):
            found = int(abs(value)) if value.is_integer() and abs(value) < BITS_32 else None
        case Variable(name):
            found = names.get(name)
        case Read() | Infix("/", _, _):
            found = None
        case Function(name, _) if name in _FLOATS:
            found = None
        case Infix("*", _, _):
            found = max(given[0] * given[1], *given)
        case Infix():
            found = sum(given)
        case Function("sign", _):
            found = max(1, *given)
        case _:
            found = max(given)
    return found if found is None or found < BITS_64 else None


def is_whole(node: Expression) -> bool:
    """Is the value a whole number of 64 bits?"""
    return bound(node) is not None
