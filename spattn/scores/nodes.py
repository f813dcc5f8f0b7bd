"""Scores as data: terms, each a word and its argument, which is arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VARIABLES = ("s", "q", "k", "h", "b")
"""The score, positions of the query and of the key, the query head, the batch entry."""

LEAST_FLOAT, GREATEST_FLOAT = 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""Between them is the size of a number that is not 0: float32 holds it with all its digits."""


@dataclass(frozen=True)
class Number:
    """A number, 0 or from `LEAST_FLOAT` to `GREATEST_FLOAT` in size; arithmetic on numbers may leave that range."""

    value: float


@dataclass(frozen=True)
class Variable:
    """One of `VARIABLES`."""

    name: str


@dataclass(frozen=True)
class Read:
    """An element of a float tensor; indices are clipped into it. Without indices the tensor's one element."""

    tensor: str
    index: tuple[Expression, ...]


@dataclass(frozen=True)
class Negative:
    """-operand; of a number it is a `Number`."""

    operand: Expression


@dataclass(frozen=True)
class Infix:
    """left operator right; the operator is + - * or /."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Function:
    """A function of `FUNCTIONS`, or of derivatives alone: sign(x), and less(x, y), 1 if x < y, 1/2 where equal."""

    name: str
    arguments: tuple[Expression, ...]


Expression = Number | Variable | Read | Negative | Infix | Function

FUNCTIONS = {"exp": 1, "tanh": 1, "log": 1, "abs": 1, "min": 2, "max": 2}
"""How many arguments each has."""


@dataclass(frozen=True)
class Term:
    """A word and its argument."""

    word: str
    argument: Expression


@dataclass(frozen=True)
class Score:
    """Terms, applied in this order; `str` gives the canonical text."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        from spattn.scores.printing import text_of

        return text_of(self)


def children(node: Expression) -> tuple[Expression, ...]:
    """What a node is made of."""
    match node:
        case Read(_, parts) | Function(_, parts):
            return parts
        case Negative(operand):
            return (operand,)
        case Infix(_, left, right):
            return left, right
        case Number() | Variable():
            return ()


def walk(node: Expression) -> Iterator[Expression]:
    """The node and all below it, each before what it is made of."""
    todo = [node]
    while todo:
        here = todo.pop()
        yield here
        todo.extend(reversed(children(here)))
