"""What `where(..)` means: from operations as written to integer and Boolean expressions."""

from __future__ import annotations

from collections.abc import Callable

from spattn.errors import PatternError
from spattn.expressions.algebra import (
    absolute,
    add,
    conj,
    disj,
    eq,
    floordiv,
    le,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    negate,
    scale,
    sub,
)
from spattn.expressions.nodes import Bool, Expr, Int, Read, Sum, Sym
from spattn.frontend.syntax import Integer, Lookup, Name, Operation, Syntax, Value

SYMBOLS = ("q", "k", "h", "b", "kv_len", "num_heads", "batch_size")
LARGEST = 2**62

_CONNECTIVES: dict[str, Callable[..., Bool]] = {"and": conj, "or": disj}
_COMPARISONS: dict[str, Callable[[Expr, Expr], Bool]] = {
    "<": lt,
    "<=": le,
    ">": lambda a, b: lt(b, a),
    ">=": lambda a, b: le(b, a),
    "==": eq,
    "!=": lambda a, b: negate(eq(a, b)),
}
_NUMERIC: dict[str, Callable[..., Expr]] = {
    "+": add,
    "-": sub,
    "*": mul,
    "neg": lambda a: scale(a, -1),
    "abs": absolute,
    "min": minimum,
    "max": maximum,
}
_DIVISIONS: dict[str, Callable[[Expr, int], Expr]] = {"//": floordiv, "%": mod}
CONDITIONS = frozenset({"not", *_CONNECTIVES, *_COMPARISONS})


def condition(value: Value) -> Bool:
    """The truth of `value`; an integer is true where it is not 0."""
    match value:
        case Operation("not", (inner,)):
            return negate(condition(inner))
        case Operation(operator, args) if operator in _CONNECTIVES:
            return _CONNECTIVES[operator](*map(condition, args))
        case Operation(operator, (left, right)) if operator in _COMPARISONS:
            return _COMPARISONS[operator](integer(left), integer(right))
        case _:
            return negate(eq(integer(value), 0))


def integer(value: Value) -> Expr:
    """The number `value`."""
    match value:
        case Integer(constant):
            return Int(constant)
        case Name(name):
            return Sym(name) if name in SYMBOLS else Read(name, ())
        case Lookup(Name(tensor), index):
            return Read(tensor, tuple(map(integer, index)))
        case Operation(operator, (dividend, divisor)) if operator in _DIVISIONS:
            return _DIVISIONS[operator](integer(dividend), _positive(divisor))
        case Operation(operator, args) if operator in _NUMERIC:
            return _small(_NUMERIC[operator](*map(integer, args)), value)
    raise PatternError(
        "E029",
        f"{value} is true or false, a number is needed",
        span=value.span,
        label="no number",
        hint="compare numbers, join comparisons by and, or, not",
    )


def _positive(divisor: Value) -> int:
    match integer(divisor):
        case Int(constant) if constant > 0:
            return constant
    raise PatternError(
        "E029",
        f"a divisor is a positive constant, {divisor} is not",
        span=divisor.span,
        label="not a positive constant",
        hint="bind the name to an integer when compiling" if isinstance(divisor, Name) else "",
    )


def _small(expr: Expr, value: Syntax) -> Expr:
    """`expr`, whose constants must fit 64 bits with room for a position."""
    match expr:
        case Int(constant):
            constants = [constant]
        case Sum(terms, constant):
            constants = [constant, *(coefficient for _, coefficient in terms)]
        case _:
            return expr
    if max(map(abs, constants)) < LARGEST:
        return expr
    raise PatternError("E090", "a constant here passes 2**62", span=value.span, label="too large")
