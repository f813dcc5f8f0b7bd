"""The table of words: what each makes of a score. A new word is a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spattn.scores.nodes import Expression, Function, Infix, Number, Read, Score, Term, Variable, walk

S, Q, K, H = (Variable(name) for name in ("s", "q", "k", "h"))


@dataclass(frozen=True)
class WordSpec:
    """One word.

    Attributes:
        parameter: What its argument is, for messages.
        doc: What it does, one line.
        takes: Which arguments it has: any arithmetic, that of positions without s, a number or a tensor's element, or
            the name of a tensor.
        meaning: The new score, in which s is the one before.
    """

    parameter: str
    doc: str
    takes: str
    meaning: Callable[[Expression], Expression]


def _softcap(c: Expression) -> Expression:
    return Infix("*", c, Function("tanh", (Infix("/", S, c),)))


def _alibi(slopes: Expression) -> Expression:
    assert isinstance(slopes, Read)
    distance = Function("abs", (Infix("-", Q, K),))
    return Infix("-", S, Infix("*", Read(slopes.tensor, (H,)), distance))


WORDS = {
    "softcap": WordSpec("c", "c * tanh(s / c)", "number", _softcap),
    "alibi": WordSpec("slopes", "s - slopes[h] * abs(q - k)", "tensor", _alibi),
    "bias": WordSpec("x", "s + x", "positions", lambda x: Infix("+", S, x)),
    "apply": WordSpec("x", "x, arithmetic over s, q, k, h, b", "any", lambda x: x),
}


def refusal(word: str, argument: Expression) -> str | None:
    """Why a word does not take an argument, as the rest of a sentence; None if it does."""
    spoken = {part.name for part in walk(argument) if isinstance(part, Variable)}
    match WORDS[word].takes:
        case "number" if not isinstance(argument, Number | Read) or "s" in spoken:
            return "a number, or a tensor's element"
        case "number" if isinstance(argument, Number) and argument.value <= 0:
            return "above 0"
        case "tensor" if not (isinstance(argument, Read) and not argument.index):
            return "the name of a tensor [num_q_heads]"
        case "positions" if "s" in spoken:
            return "arithmetic without s: apply(s + ..) has it"
    return None


def steps(score: Score) -> tuple[Expression, ...]:
    """The score after each term, in which s is the one before."""
    return tuple(_meaning(term) for term in score.terms)


def _meaning(term: Term) -> Expression:
    return WORDS[term.word].meaning(term.argument)


def reads(score: Score) -> dict[str, int]:
    """The float tensors by name, in the order in which they occur, and how many indices each has."""
    return {part.tensor: len(part.index) for step in steps(score) for part in walk(step) if isinstance(part, Read)}


def variables(score: Score) -> frozenset[str]:
    """The names of `nodes.VARIABLES` that the score speaks of."""
    return frozenset(part.name for step in steps(score) for part in walk(step) if isinstance(part, Variable))
