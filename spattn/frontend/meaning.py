"""What a pattern means: a condition on `q`, `k`, `h`, `b` and the lengths, and the tensors it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from spattn.errors import BindError, PatternError, UnsupportedError
from spattn.expressions.algebra import add, conj, disj, floordiv, negate, substitute_bool
from spattn.expressions.nodes import KV_LEN, Bool, Expr, K, Q
from spattn.frontend.arithmetic import SYMBOLS
from spattn.frontend.context import Word
from spattn.frontend.prelude import expand, lookup
from spattn.frontend.spec import ROLES, Arguments, AtomSpec, Parameter
from spattn.frontend.syntax import (
    Atom,
    Complement,
    Difference,
    IndexSet,
    Intersection,
    Lookup,
    Name,
    Node,
    Operation,
    Segments,
    Union,
    Value,
)


def meaning(node: Node) -> Bool:
    """`node` as a condition on the symbols `q`, `k`, `h`, `b`, `kv_len`, `num_heads`, `batch_size`.

    Raises:
        SpattnError: A name has no value, or an atom stands where it has no meaning.
    """
    return _meaning(node, _OUTSIDE)


@dataclass(frozen=True)
class _Frame:
    """The combinator that a pattern stands in, and the size of the blocks whose indices stand for its positions."""

    name: str
    block: int

    def inside(self, name: str, block: int) -> _Frame:
        # blocks of blocks: floor(floor(q/a)/b) = floor(q/(a*b)); no position passes 2**31
        return _Frame(self.name or name, min(self.block * block, 2**31))

    def coarsen(self, condition: Bool) -> Bool:
        """`condition` on block indices."""
        s = self.block
        if s == 1:
            return condition
        blocks: dict[Expr | Bool, Expr | Bool] = {Q: floordiv(Q, s), K: floordiv(K, s)}
        return substitute_bool(condition, {**blocks, KV_LEN: floordiv(add(KV_LEN, s - 1), s)})


_OUTSIDE = _Frame("", 1)


def _meaning(node: Node, frame: _Frame) -> Bool:
    """`node` inside a combinator."""
    match node:
        case Union(operands):
            return disj(*(_meaning(operand, frame) for operand in operands))
        case Intersection(operands):
            return conj(*(_meaning(operand, frame) for operand in operands))
        case Difference(left, right):
            return conj(_meaning(left, frame), negate(_meaning(right, frame)))
        case Complement(operand):
            return negate(_meaning(operand, frame))
        case Atom():
            return _atom(node, frame)
    raise AssertionError(f"no meaning for {type(node).__name__}")


def _atom(atom: Atom, frame: _Frame) -> Bool:
    match lookup(atom.name):
        case Word() as word:
            return _meaning(expand(word, atom), frame)
        case AtomSpec() as spec:
            if frame.name and spec.outermost:
                raise _inside(atom, frame.name)
            if not any(isinstance(argument.value, Node) for argument in atom.arguments):
                return _leaf(spec, atom, frame)
            return spec.meaning(
                Arguments(atom, _values(spec, atom), lambda node, s: _meaning(node, frame.inside(atom.name, s)))
            )
    raise PatternError("E012", f"there is no pattern {atom.name!r}", span=atom.span, label="unknown name")


@lru_cache(maxsize=1024)
def _leaf(spec: AtomSpec, atom: Atom, frame: _Frame) -> Bool:
    """An atom without patterns in it. Kept, because parsing asks once to see errors and the compiler once more."""
    return frame.coarsen(spec.meaning(Arguments(atom, _values(spec, atom), _no_pattern)))


def _no_pattern(node: Node, block: int) -> Bool:
    raise AssertionError(f"no pattern stands in {node}")


def _values(spec: AtomSpec, atom: Atom) -> dict[str, Value]:
    """The value of each parameter, defaults filled in."""
    values = {p.name: p.default for p in _signature(spec, atom) if p.default is not None}
    return values | {argument.parameter: argument.value for argument in atom.arguments}


def _signature(spec: AtomSpec, atom: Atom) -> tuple[Parameter, ...]:
    given = {argument.parameter for argument in atom.arguments}
    for signature in spec.signatures:
        needed = {parameter.name for parameter in signature if parameter.default is None}
        if needed <= given <= {parameter.name for parameter in signature}:
            return signature
    raise PatternError("E022", f"write {spec.usage()}", span=atom.span, label="arguments do not fit")


def _inside(atom: Atom, frame: str) -> UnsupportedError:
    message = f"{atom.name} has no meaning inside {frame}(..)"
    hint = f"join it from outside: {frame}(.., ..) & {atom.name}(..)"
    return UnsupportedError("E028", message, span=atom.span, label="not inside", hint=hint)


def disjuncts(node: Node) -> tuple[Node, ...]:
    """The terms of the outermost union, `node` alone if it is none."""
    if not isinstance(node, Union):
        return (node,)
    return tuple(term for operand in node.operands for term in disjuncts(operand))


def free_names(node: Node) -> dict[str, str]:
    """The tensors that a call must give, and what each is.

    Returns:
        name -> tokens, documents, query documents, segments, blocks, block lists, draft ancestors, draft depths,
        lengths or tensor.

    Raises:
        BindError: E039, a name stands for two kinds of tensors.
    """
    found: dict[str, str] = {}
    for name, role in _uses(node):
        if found.setdefault(name.name, role) != role:
            message = f"{name.name!r} is used as {found[name.name]} and as {role}"
            hint = "give the second tensor a name of its own"
            raise BindError("E039", message, span=name.span, label=f"as {role} here", hint=hint)
    return found


def _uses(node: Node) -> Iterator[tuple[Name, str]]:
    match node:
        case Union(operands) | Intersection(operands):
            for operand in operands:
                yield from _uses(operand)
        case Difference(left, right):
            yield from _uses(left)
            yield from _uses(right)
        case Complement(operand):
            yield from _uses(operand)
        case Atom():
            yield from _uses_of_atom(node)


def _uses_of_atom(atom: Atom) -> Iterator[tuple[Name, str]]:
    spec = lookup(atom.name)
    if isinstance(spec, Word):
        # a word's own insides have no place in the text: the atom's place stands for them
        yield from ((Name(name.name, span=atom.span), role) for name, role in _uses(expand(spec, atom)))
    elif spec is not None:
        kinds = {parameter.name: parameter.kind for signature in spec.signatures for parameter in signature}
        for argument in atom.arguments:
            role = ROLES.get(kinds[argument.parameter])
            yield from _uses_of_value(argument.value, role)


def _uses_of_value(value: Value, role: str | None) -> Iterator[tuple[Name, str]]:
    match value:
        case Node():
            yield from _uses(value)
        case Name(name) if role is not None and name not in SYMBOLS:
            yield value, role
        case Segments(tensor):
            yield tensor, "segments"
        case IndexSet(items) if role is not None:
            yield from ((item, role) for item in items if isinstance(item, Name))
        case Operation(_, args):
            for arg in args:
                yield from _uses_of_value(arg, "tensor")
        case Lookup(tensor, index):
            yield tensor, "tensor"
            for part in index:
                yield from _uses_of_value(part, "tensor")
