"""Words defined in the language itself, in `grammar/prelude.spattn`: published patterns under their names.

A parameter's kind is taken from its use: the `w` of `longformer(w, tokens) = local(w) | global(tokens)` is what
`local` wants. A word may use those before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType

from lark import Tree

from spattn._resources import GRAMMAR_DIR
from spattn.errors import Span
from spattn.expressions.nodes import TRUE, Bool
from spattn.frontend.atoms import ATOMS
from spattn.frontend.context import Context, Word
from spattn.frontend.grammar import Item, parts, tree_of
from spattn.frontend.reading import read_pattern
from spattn.frontend.spec import AtomSpec, Parameter
from spattn.frontend.syntax import (
    Argument,
    Atom,
    Complement,
    Difference,
    IndexSet,
    Integer,
    Intersection,
    Lookup,
    Name,
    Node,
    Operation,
    Slice,
    Syntax,
    Union,
    Value,
)
from spattn.frontend.values import read_value


@cache
def words() -> Mapping[str, Word]:
    """All words by name."""
    known: dict[str, Word] = {}
    for doc, text in _definitions((GRAMMAR_DIR / "prelude.spattn").read_text(encoding="ascii")):
        word = _read_definition(text, doc, known)
        known[word.name] = word
    return MappingProxyType(known)


def lookup(name: str) -> AtomSpec | Word | None:
    """The atom or word `name`."""
    return ATOMS.get(name) or words().get(name)


def signatures(name: str) -> tuple[tuple[Parameter, ...], ...]:
    """The ways to write `name`; none where it is unknown."""
    found = lookup(name)
    return () if found is None else found.signatures


def names() -> tuple[str, ...]:
    """All atoms and words."""
    return (*ATOMS, *words())


def _definitions(text: str) -> Iterator[tuple[str, str]]:
    """(documentation, definition) pairs; comment lines above a definition document it, indented lines go on."""
    doc: list[str] = []
    for line in text.replace("\n    ", " ").splitlines():
        if line.startswith("#"):
            doc.append(line.removeprefix("#").strip())
        elif line.strip():
            yield " ".join(doc), line
            doc = []
        else:
            doc = []


def _read_definition(text: str, doc: str, known: Mapping[str, Word]) -> Word:
    name, *heads, body = parts(tree_of(text, "definition"))
    written = [parts(head) for head in heads if isinstance(head, Tree) and head.data == "parameter"]
    assert body is not None
    context = Context(
        text,
        lambda name: ATOMS.get(name) or known.get(name),
        (*ATOMS, *known),
        _unchecked,
        parameters=frozenset(str(head[0]) for head in written),
    )
    node = read_pattern(context, body)
    parameters = tuple(_parameter(context, head) for head in written)
    if context.errors:
        raise context.errors[0]
    return Word(str(name), parameters, node, doc)


def _unchecked(node: Node) -> Bool:
    return TRUE


def _parameter(context: Context, head: list[Item | None]) -> Parameter:
    name, default = head
    used = context.kinds[str(name)]
    value = None if default is None else read_value(context, default, used)
    return Parameter(str(name), used.kind, value, used.minimum)


def expand(word: Word, atom: Atom) -> Node:
    """What `atom`, an instance of `word`, stands for."""
    values = {parameter.name: parameter.default for parameter in word.parameters}
    values.update({argument.parameter: argument.value for argument in atom.arguments})
    filled = {name: value for name, value in values.items() if value is not None}
    return _fill_pattern(word.body, filled, atom.span)


def _fill_pattern(node: Node, values: Mapping[str, Value], span: Span | None) -> Node:
    """`node` with its parameters replaced; its atoms stand where the word stood."""
    match node:
        case Atom(name, arguments):
            return Atom(name, tuple(Argument(a.parameter, _fill(a.value, values, span)) for a in arguments), span=span)
        case Union(operands):
            return Union(tuple(_fill_pattern(operand, values, span) for operand in operands))
        case Intersection(operands):
            return Intersection(tuple(_fill_pattern(operand, values, span) for operand in operands))
        case Difference(left, right):
            return Difference(_fill_pattern(left, values, span), _fill_pattern(right, values, span))
        case Complement(operand):
            return Complement(_fill_pattern(operand, values, span))
    raise AssertionError(f"no rule for {type(node).__name__}")


def _fill(value: Value, values: Mapping[str, Value], span: Span | None) -> Value:
    match value:
        case Name(name):
            return values.get(name, value)
        case IndexSet(items):
            return IndexSet(tuple(filled for item in items for filled in _fill_item(item, values, span)))
        case Operation(operator, args):
            return Operation(operator, tuple(_fill(arg, values, span) for arg in args))
        case Lookup(tensor, index):
            filled = _fill(tensor, values, span)
            assert isinstance(filled, Name)
            return Lookup(filled, tuple(_fill(i, values, span) for i in index))
        case Node():
            return _fill_pattern(value, values, span)
    return value


def _fill_item(item: Syntax, values: Mapping[str, Value], span: Span | None) -> Iterator[Integer | Name | Slice]:
    """An item of a set; a parameter that is itself a set is spliced in."""
    match item:
        case Slice(start, stop, step):
            yield Slice(*(None if part is None else _bound(_fill(part, values, span)) for part in (start, stop, step)))
        case Integer() | Name():
            filled = _fill(item, values, span)
            yield from filled.items if isinstance(filled, IndexSet) else (_bound(filled),)


def _bound(value: Value) -> Integer | Name:
    assert isinstance(value, Integer | Name)
    return value
