"""From the tree of shapes to a pattern: names are looked up, arguments put under their parameters' names.

An error is noted and reading goes on with `none` in its place, so that all errors of a text are told at once.
"""

from __future__ import annotations

from lark import Token, Tree

from spattn.frontend.conditions import read_condition
from spattn.frontend.context import Context, Word, suggestion
from spattn.frontend.grammar import Item
from spattn.frontend.limits import span_of
from spattn.frontend.spec import AtomSpec, Kind, Parameter, number, usage
from spattn.frontend.syntax import (
    Argument,
    Atom,
    Complement,
    Difference,
    IndexSet,
    Intersection,
    Node,
    Slice,
    Union,
    Value,
)
from spattn.frontend.values import read_value

_NONE = Atom("none")
_Given = list[tuple[Token | None, Item]]


def read_pattern(context: Context, item: Item) -> Node:
    """The pattern written as `item`."""
    match item:
        case Token():
            return _read_atom(context, item, item, [])
        case Tree(data="union", children=operands):
            return Union(tuple(read_pattern(context, o) for o in operands), span=span_of(item))
        case Tree(data="intersection", children=operands):
            return Intersection(tuple(read_pattern(context, o) for o in operands), span=span_of(item))
        case Tree(data="difference", children=[left, right]):
            return Difference(read_pattern(context, left), read_pattern(context, right), span=span_of(item))
        case Tree(data="negation", children=[operand]):
            return Complement(read_pattern(context, operand), span=span_of(item))
        case Tree(data="where", children=[inner]):
            before = len(context.errors)
            value = read_condition(context, inner)
            if len(context.errors) > before:
                return _NONE
            return _finish(context, Atom("where", (Argument("condition", value),), span=span_of(item)))
        case Tree(data="call", children=[Token() as name, *arguments]):
            return _read_atom(context, item, name, [_given(argument) for argument in arguments])
    context.fail("E027", "a pattern is needed here", item, "not a pattern")
    return _NONE


def _given(argument: Item) -> tuple[Token | None, Item]:
    match argument:
        case Tree(data="keyword", children=[Token() as name, value]):
            return name, value
    return None, argument


def _read_atom(context: Context, item: Item, name: Token, given: _Given) -> Node:
    spec = context.lookup(str(name))
    if spec is None:
        _unknown(context, name)
        return _NONE
    before = len(context.errors)
    signature = _choose(spec, given)
    bound = _bind(context, item, spec, signature, given)
    arguments = []
    for parameter in signature:
        if parameter.name in bound:
            value = _read_argument(context, bound[parameter.name], parameter)
            arguments += [] if value is None else [Argument(parameter.name, value)]
    if len(context.errors) > before:
        return _NONE
    return _finish(context, Atom(spec.name, tuple(arguments), span=span_of(item)))


def _read_argument(context: Context, item: Item, parameter: Parameter) -> Value | None:
    if parameter.kind is Kind.PATTERN:
        context.nesting += 1
        node = read_pattern(context, item)
        context.nesting -= 1
        return node
    return read_value(context, item, parameter)


def _unknown(context: Context, name: Token) -> None:
    if name in context.bindings:
        context.used.add(str(name))
        context.fail("E027", f"{str(name)!r} is bound to an integer, a pattern is needed", name, "not a pattern")
        return
    hint = suggestion(str(name), context.names) or "the table of atoms lists all names"
    context.fail("E012", f"there is no pattern {str(name)!r}", name, "unknown name", hint)


def _choose(spec: AtomSpec | Word, given: _Given) -> tuple[Parameter, ...]:
    """The first signature that takes the arguments, else the first."""
    positional = sum(name is None for name, _ in given)
    keywords = {str(name) for name, _ in given if name is not None}
    for signature in spec.signatures:
        names = [parameter.name for parameter in signature if not parameter.keyword_only]
        missing = {p.name for p in signature[positional:] if p.default is None} - keywords
        if positional <= len(names) and keywords <= {p.name for p in signature} and not missing:
            return signature
    return spec.signatures[0]


def _bind(
    context: Context, item: Item, spec: AtomSpec | Word, signature: tuple[Parameter, ...], given: _Given
) -> dict[str, Item]:
    """Each argument under its parameter's name."""
    shown = f"write {usage(spec.name, spec.signatures)}"
    order = [parameter.name for parameter in signature if not parameter.keyword_only]
    known = tuple(dict.fromkeys(parameter.name for s in spec.signatures for parameter in s))
    before = len(context.errors)
    bound: dict[str, Item] = {}
    for place, (keyword, value) in enumerate(given):
        name = str(keyword) if keyword is not None else order[place] if place < len(order) else None
        if name is None:
            context.fail("E023", f"{spec.name} has too many arguments", value, "one too many", shown)
            break
        if name not in known:
            hint = suggestion(name, known) or shown
            context.fail("E024", f"{spec.name} has no parameter {name!r}", keyword or value, "unknown", hint)
        elif name in bound:
            context.fail("E025", f"{name!r} is given twice", value, "again here", shown)
        elif name not in {p.name for p in signature}:
            context.fail(
                "E024", f"{name!r} does not go with the other arguments", keyword or value, "which one?", shown
            )
        else:
            bound[name] = value
    missing = [p for p in signature if p.default is None and p.name not in bound]
    if len(context.errors) == before:
        for parameter in missing:
            context.fail("E022", f"{spec.name} needs the argument {parameter.name!r}", item, "missing", shown)
    return bound


def _finish(context: Context, atom: Atom) -> Node:
    """`atom` checked; `layers` of a known layer becomes `full` or `none`."""
    if context.parameters:
        return atom
    if atom.name == "layers":
        return atom if context.layer is None else _fold_layers(context, atom, context.layer)
    if context.nesting == 0 or not any(isinstance(argument.value, Node) for argument in atom.arguments):
        # nested combinators are checked by the outermost one, or deep nesting would cost its square
        context.check(atom)
    return atom


def _fold_layers(context: Context, atom: Atom, layer: int) -> Node:
    numbers = atom.arguments[0].value
    assert isinstance(numbers, IndexSet)
    assert atom.span is not None
    if any(_is_from_end(item) for item in numbers.items):
        context.fail("E032", "layers count from 0, not from the end", atom.span, "a negative number")
        return _NONE
    return Atom("full" if any(_has(item, layer) for item in numbers.items) else "none", span=atom.span)


def _is_from_end(item: Value | Slice) -> bool:
    match item:
        case Slice(start, stop, _):
            return any(bound is not None and number(bound) < 0 for bound in (start, stop))
    return number(item) < 0


def _has(item: Value | Slice, layer: int) -> bool:
    match item:
        case Slice(start, stop, step):
            low = 0 if start is None else number(start)
            high = layer + 1 if stop is None else number(stop)
            return layer in range(low, high, 1 if step is None else number(step))
    return number(item) == layer
