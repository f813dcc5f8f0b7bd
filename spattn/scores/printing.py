"""Scores as text, from which the parser makes the same score."""

from __future__ import annotations

from spattn.scores.nodes import Expression, Function, Infix, Negative, Number, Read, Score, Variable

_SUM, _PRODUCT, _SIGNED, _OPERAND = range(4)
_LEVELS = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT}
_EXACT = 2**53


def text_of(score: Score) -> str:
    """The canonical text."""
    return " + ".join(f"{term.word}({expression_text(term.argument)})" for term in score.terms)


def expression_text(node: Expression, level: int = _SUM) -> str:
    """Arithmetic, in brackets where it binds weaker than `level`."""
    text, own = _text(node)
    return f"({text})" if own < level else text


def _text(node: Expression) -> tuple[str, int]:
    match node:
        case Number(value):
            return number_text(value), _SIGNED if number_text(value).startswith("-") else _OPERAND
        case Variable(name) | Read(name, ()):
            return name, _OPERAND
        case Read(name, index):
            return f"{name}[{', '.join(map(expression_text, index))}]", _OPERAND
        case Function(name, arguments):
            return f"{name}({', '.join(map(expression_text, arguments))})", _OPERAND
        case Negative(operand):
            return f"-{expression_text(operand, _SIGNED)}", _SIGNED
        case Infix(operator, left, right):
            own = _LEVELS[operator]
            return f"{expression_text(left, own)} {operator} {expression_text(right, own + 1)}", own


def number_text(value: float) -> str:
    """The shortest text of a number; one that is whole without a point."""
    return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)
