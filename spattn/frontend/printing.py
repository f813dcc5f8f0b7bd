"""Nodes back to text; parsing it again gives an equal node."""

from __future__ import annotations

from spattn.frontend.syntax import (
    Argument,
    Atom,
    Complement,
    Difference,
    Flag,
    IndexSet,
    Infinity,
    Integer,
    Intersection,
    Lookup,
    Name,
    Node,
    Operation,
    Segments,
    Slice,
    Syntax,
    Union,
)

_LOOSENESS = {Union: 4, Intersection: 3, Difference: 2, Complement: 1}
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_TIGHTNESS = {"or": 0, "and": 1, "not": 2, **dict.fromkeys(_COMPARISONS, 3), "+": 4, "-": 4, "*": 5, "//": 5, "%": 5}
_NEGATIVE, _OPERAND = 6, 7


def text(node: Syntax) -> str:
    """`node` in the language, with the fewest parentheses."""
    match node:
        case Union(operands):
            return " | ".join(_within(operand, 3) for operand in operands)
        case Intersection(operands):
            return " & ".join(_within(operand, 2) for operand in operands)
        case Difference(left, right):
            return f"{_within(left, 2)} - {_within(right, 1)}"
        case Complement(operand):
            return f"~{_within(operand, 1)}"
        case Atom(name, arguments):
            return f"{name}({', '.join(_arguments(name, arguments))})" if arguments else name
        case Slice(start, stop, step):
            written = f"{_optional(start)}:{_optional(stop)}"
            return written if step is None else f"{written}:{text(step)}"
        case IndexSet(items):
            return f"[{', '.join(map(text, items))}]"
        case Operation():
            return _operation(node)
        case Lookup(tensor, index):
            return f"{text(tensor)}[{', '.join(map(text, index))}]"
        case Segments(tensor):
            return f"segments({text(tensor)})"
        case Integer(value):
            return str(value)
        case Infinity():
            return "inf"
        case Flag(flag):
            return "true" if flag else "false"
        case Name(name):
            return name
    raise AssertionError(f"no text for {type(node).__name__}")


def _within(node: Node, looseness: int) -> str:
    """`node` where only what binds at least as tightly as `looseness` stands without parentheses."""
    return text(node) if _LOOSENESS.get(type(node), 0) <= looseness else f"({text(node)})"


def _optional(node: Syntax | None) -> str:
    return "" if node is None else text(node)


def _arguments(name: str, arguments: tuple[Argument, ...]) -> list[str]:
    """Arguments by position as far as the signature goes, then by keyword."""
    from spattn.frontend.prelude import signatures

    given = [argument.parameter for argument in arguments]
    order = next((s for s in signatures(name) if set(given) <= {p.name for p in s}), ())
    leading = [parameter.name for parameter in order if not parameter.keyword_only]
    written = []
    for place, argument in enumerate(arguments):
        plain = given[: place + 1] == leading[: place + 1]
        written.append(text(argument.value) if plain else f"{argument.parameter}={text(argument.value)}")
    return written


def _operation(node: Operation) -> str:
    level = _TIGHTNESS.get(node.operator, _NEGATIVE)
    match node.operator, node.args:
        case "neg", (arg,):
            return f"-{_operand(arg, _NEGATIVE)}"
        case "not", (arg,):
            return f"not {_operand(arg, level)}"
        case (("abs" | "min" | "max"), args):
            return f"{node.operator}({', '.join(map(text, args))})"
        case (("and" | "or"), args):
            return f" {node.operator} ".join(_operand(arg, level + 1) for arg in args)
        case operator, (left, right):
            return f"{_operand(left, level + (level == 3))} {operator} {_operand(right, level + 1)}"
    raise AssertionError(f"no text for {node.operator}")


def _operand(node: Syntax, level: int) -> str:
    """`node` in parentheses where it binds looser than `level`."""
    match node:
        case Operation("abs" | "min" | "max"):
            own = _OPERAND
        case Operation(operator):
            own = _TIGHTNESS.get(operator, _NEGATIVE)
        case Integer(value) if value < 0:
            own = _NEGATIVE
        case _:
            own = _OPERAND
    return text(node) if own >= level else f"({text(node)})"
