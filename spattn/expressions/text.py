"""Expressions in the notation of the language's `where`, for people to read."""

from __future__ import annotations

from spattn.expressions.nodes import (
    And,
    BitTable,
    Bool,
    Eq,
    Expr,
    FloorDiv,
    GivenTable,
    Int,
    InTable,
    Le,
    Length,
    ListedTable,
    Max,
    Member,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    RandomTable,
    Read,
    Relative,
    SameSegment,
    Select,
    Sum,
    Sym,
    Table,
    Tokens,
    Truth,
)


def text(node: Expr | Bool) -> str:
    """`node` as one line."""
    result = _text(node)
    return result[1:-1] if isinstance(node, Sum | Mul | FloorDiv | Mod | And | Or) else result


def _text(node: Expr | Bool) -> str:
    match node:
        case Int(value):
            return str(value)
        case Sym(name):
            return name
        case Sum(terms, constant):
            return f"({_sum(terms, constant)})"
        case Mul(left, right):
            return f"({_text(left)} * {_text(right)})"
        case FloorDiv(dividend, divisor):
            return f"({_text(dividend)} // {_text(divisor)})"
        case Mod(dividend, divisor):
            return f"({_text(dividend)} % {_text(divisor)})"
        case Min(args) | Max(args):
            return f"{type(node).__name__.lower()}({', '.join(map(text, args))})"
        case Select(condition, then, otherwise):
            return f"({text(then)} if {text(condition)} else {text(otherwise)})"
        case Read(tensor, index):
            return f"{tensor}[{', '.join(map(text, index))}]" if index else str(tensor)
        case Length(tensor):
            return f"len({tensor})"
        case Truth(value):
            return str(value).lower()
        case Le(left, right):
            return f"{_bare(left)} <= {_bare(right)}"
        case Eq(Select(condition, Int(1), Int(0)), Int(1)):
            return f"({text(condition)})"
        case Eq(left, right):
            return f"{_bare(left)} == {_bare(right)}"
        case And(args):
            return f"({' and '.join(map(_text, args))})"
        case Or(args):
            return f"({' or '.join(map(_text, args))})"
        case Not(arg):
            return f"not ({text(arg)})"
        case Member(position, tokens, _):
            return f"{_bare(position)} in {tokens_text(tokens)}"
        case SameSegment(documents, left, right):
            return f"{documents.queries}[{text(left)}] == {documents.keys}[{text(right)}]"
        case Relative(documents, inner):
            return f"within({documents}: {text(inner)})"
        case InTable(ListedTable(tensor), row, column):
            return f"{_bare(column)} in {tensor}[{text(row)}]"
        case InTable(BitTable(tensor), row, column):
            return f"bit {_bare(column)} of {tensor}[{text(row)}]"
        case InTable(table, row, column):
            return f"{table_text(table)}[{text(row)}, {text(column)}]"
    raise AssertionError(node)


def _bare(expr: Expr) -> str:
    return text(expr) if isinstance(expr, Sum | Mul) else _text(expr)


def _sum(terms: tuple[tuple[Expr, int], ...], constant: int) -> str:
    result = ""
    for term, coefficient in terms:
        factor = _text(term) if abs(coefficient) == 1 else f"{abs(coefficient)}*{_text(term)}"
        sign = ("-" if coefficient < 0 else "") if not result else (" - " if coefficient < 0 else " + ")
        result += sign + factor
    if constant:
        result += f" + {constant}" if constant > 0 else f" - {-constant}"
    return result


def tokens_text(tokens: Tokens) -> str:
    """A token list as the language writes it."""
    runs: list[list[int]] = []
    for value in tokens.values:
        if runs and runs[-1][-1] == value - 1 and value:
            runs[-1].append(value)
        else:
            runs.append([value])
    spoken = [part for run in runs for part in ([_slice(run)] if len(run) > 2 else map(str, run))]
    return f"[{', '.join([*spoken, *tokens.tensors])}]"


def _slice(run: list[int]) -> str:
    return f"{run[0]}:{run[-1] + 1}" if run[-1] != -1 else f"{run[0]}:"


def table_text(table: Table) -> str:
    """A table by the atom that made it."""
    match table:
        case GivenTable(tensor) | ListedTable(tensor) | BitTable(tensor):
            return tensor
        case RandomTable(count, seed, past, _):
            return f"random({count}, seed={seed}{', past=true' if past else ''})"
