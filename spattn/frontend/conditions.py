"""The arithmetic of `where(..)` from a tree of shapes to operations, names bound."""

from __future__ import annotations

from lark import Token, Tree

from spattn.frontend.arithmetic import SYMBOLS
from spattn.frontend.context import Context, suggestion
from spattn.frontend.grammar import Item
from spattn.frontend.limits import span_of
from spattn.frontend.reserved import CONSTANTS, is_reserved
from spattn.frontend.spec import Kind, Parameter
from spattn.frontend.syntax import Integer, Lookup, Name, Operation, Value
from spattn.frontend.values import read_integer

_FUNCTIONS = {"abs": (1, 1), "min": (1, 64), "max": (1, 64)}
_WORDS = {"either": "or", "both": "and", "inversion": "not"}
_NUMBER = Parameter("a name in where(..)", Kind.INTEGER)
_DIVISOR = Parameter("a divisor", Kind.INTEGER, minimum=1)
_NOTHING = Integer(1)
"""Stands where an error was noted."""


def read_condition(context: Context, item: Item) -> Value:
    """The operation written as `item`."""
    match item:
        case Token(type="NUMBER"):
            return read_integer(context, None, item) or _NOTHING
        case Token():
            return _read_name(context, item)
        case Tree(data="infix", children=[Tree() | Token() as left, Token() as operator, Tree() | Token() as right]):
            return _read_infix(context, item, left, operator, right)
        case Tree(data="negative", children=[Tree() | Token() as inner]):
            return _negative(read_condition(context, inner), item)
        case Tree(data="function", children=[Token() as name, *args]):
            return _read_function(context, item, name, args)
        case Tree(data="lookup", children=[Token() as name, *index]):
            return _read_lookup(context, item, name, index)
        case Tree(data="chained"):
            hint = "write a < b and b < c"
            context.fail("E029", "comparisons are not chained", item, "more than one comparison", hint)
            return _NOTHING
    assert isinstance(item, Tree)
    return Operation(_WORDS[item.data], _read_all(context, item.children), span=span_of(item))


def _read_all(context: Context, items: list[Tree[Token] | Token]) -> tuple[Value, ...]:
    return tuple(read_condition(context, item) for item in items)


def _read_name(context: Context, name: Token) -> Value:
    if name in context.parameters:
        context.note(str(name), _NUMBER)
    elif name in CONSTANTS:
        context.fail("E027", f"{name!s} is no number", name, "not in where(..)", "write 0 == 0 for true")
    elif name not in SYMBOLS and not is_reserved(context, name) and name in context.bindings:
        context.used.add(str(name))
        return Integer(context.bindings[name], span=span_of(name))
    return Name(str(name), span=span_of(name))


def _read_infix(context: Context, item: Tree[Token], left: Item, operator: Token, right: Item) -> Value:
    args = (read_condition(context, left), read_condition(context, right))
    if operator in ("//", "%") and isinstance(right, Token) and right in context.parameters:
        context.note(str(right), _DIVISOR)
    return Operation(str(operator), args, span=span_of(item))


def _negative(value: Value, item: Tree[Token]) -> Value:
    match value:
        case Integer(number):
            return Integer(-number, span=span_of(item))
    return Operation("neg", (value,), span=span_of(item))


def _read_function(context: Context, item: Tree[Token], name: Token, args: list[Tree[Token] | Token]) -> Value:
    if name not in _FUNCTIONS:
        hint = suggestion(str(name), tuple(_FUNCTIONS)) or "where(..) knows abs, min, max; a tensor is read as t[k]"
        context.fail("E012", f"where(..) has no function {str(name)!r}", name, "no such function", hint)
        return _NOTHING
    least, most = _FUNCTIONS[name]
    if not least <= len(args) <= most:
        code, word = ("E022", "few") if len(args) < least else ("E023", "many")
        context.fail(code, f"{name!s} has too {word} arguments", item, f"{len(args)} given")
        return _NOTHING
    return Operation(str(name), _read_all(context, args), span=span_of(item))


def _read_lookup(context: Context, item: Tree[Token], name: Token, index: list[Tree[Token] | Token]) -> Value:
    if name not in SYMBOLS and is_reserved(context, name):
        return _NOTHING
    if name in SYMBOLS or name in context.bindings:
        context.used.add(str(name))
        context.fail("E031", f"{name!s} is an integer and has no entries", name, "not a tensor")
        return _NOTHING
    tensor = Name(str(name), span=span_of(name))
    if name in context.parameters:
        context.note(str(name), Parameter("a tensor", Kind.BLOCKS))
    return Lookup(tensor, _read_all(context, index), span=span_of(item))
