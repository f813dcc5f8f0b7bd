"""Hypothesis strategies that draw patterns from the language's own table, and tensors that fit them.

Numbers are small, so that lengths up to about 200 see windows, borders and empty rows; a new row of the table is drawn
without a change here, as long as its parameters are of known kinds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from spattn.expressions.algebra import subexpressions
from spattn.expressions.nodes import Read
from spattn.frontend.arithmetic import SYMBOLS
from spattn.frontend.atoms import ATOMS
from spattn.frontend.context import Word
from spattn.frontend.meaning import free_names, meaning
from spattn.frontend.prelude import words
from spattn.frontend.spec import AtomSpec, Kind, Parameter
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
    Union,
    Value,
)

LAYERS = frozenset({"layers"})
"""They need a number from outside."""


@st.composite
def patterns(draw: st.DrawFn, depth: int = 3, guards: bool = True, inner: bool = False) -> Node:
    """A pattern of at most `depth` operators above one another.

    Args:
        draw: Hypothesis's.
        depth: Levels of operators.
        guards: Atoms that are not affine too: tensors, random blocks, lists of tokens, free names, where(..).
        inner: Only what may stand inside `within` or `blockwise`.
    """
    if depth == 0 or draw(st.integers(0, 2)) == 0:
        return draw(atoms(depth, guards, inner))
    below = patterns(depth=depth - 1, guards=guards, inner=inner)
    match draw(st.sampled_from("|&-~")):
        case "|":
            return Union(tuple(draw(st.lists(below, min_size=2, max_size=3))))
        case "&":
            return Intersection(tuple(draw(st.lists(below, min_size=2, max_size=3))))
        case "-":
            return Difference(draw(below), draw(below))
    return Complement(draw(below))


@st.composite
def atoms(draw: st.DrawFn, depth: int = 1, guards: bool = True, inner: bool = False) -> Node:
    """A row of the table or a word of the prelude with arguments of each kind."""
    spec = draw(st.sampled_from([s for s in _rows(inner) if guards or not is_guarded(s)]))
    signature = draw(st.sampled_from(spec.signatures))
    written = [p for p in signature if p.default is None or draw(st.booleans())]
    rank = draw(st.integers(1, 3))
    arguments = [Argument(p.name, draw(_values(p, rank, depth, guards))) for p in written]
    return Atom(spec.name, tuple(arguments))


def _rows(inner: bool) -> list[AtomSpec | Word]:
    rows: list[AtomSpec | Word] = [s for s in ATOMS.values() if s.name not in LAYERS and not (inner and s.outermost)]
    return rows if inner else [*rows, *words().values()]


def is_guarded(spec: AtomSpec | Word) -> bool:
    """Does its meaning read more than symbols?"""
    if isinstance(spec, Word):
        return True
    tensors = (Kind.DOCUMENTS, Kind.QUERY_DOCUMENTS, Kind.LENGTHS, Kind.BLOCKS, Kind.LISTS, Kind.CONDITION)
    return spec.outermost or any(p.kind in tensors for s in spec.signatures for p in s)


def _values(parameter: Parameter, rank: int, depth: int, guards: bool) -> st.SearchStrategy[Value]:
    least = parameter.minimum if parameter.minimum is not None else -20
    number = st.builds(Integer, st.one_of(st.integers(least, least + 6), st.integers(least, least + 70)))
    small = st.builds(Integer, st.integers(max(least, 1), 9))
    flag = st.builds(Flag, st.booleans())
    match parameter.kind:
        case Kind.INTEGER:
            return number
        case Kind.EXTENT:
            return st.one_of(number, st.just(Infinity()))
        case Kind.FLAG | Kind.FLAGS:
            return flag
        case Kind.AXES if parameter.name == "grid":
            return st.lists(small, min_size=rank, max_size=rank).map(lambda axes: IndexSet(tuple(axes)))
        case Kind.AXES:
            each = st.lists(small, min_size=rank, max_size=rank).map(lambda axes: IndexSet(tuple(axes)))
            return st.one_of(small, each)
        case Kind.BORDER:
            return st.sampled_from([Name("shift"), Name("cut")])
        case Kind.INDICES | Kind.OFFSETS:
            return index_sets(names=guards)
        case Kind.NUMBERS:
            return index_sets(names=False)
        case Kind.DOCUMENTS:
            return st.sampled_from([Name("ids"), Segments(Name("cu"))])
        case Kind.QUERY_DOCUMENTS:
            return st.sampled_from([Name("q_ids"), Segments(Name("cu")), Segments(Name("q_cu"))])
        case Kind.LENGTHS | Kind.BLOCKS | Kind.LISTS | Kind.ANCESTORS | Kind.DEPTHS:
            named = {Kind.LENGTHS: "lengths", Kind.BLOCKS: "table", Kind.LISTS: "lists", Kind.DEPTHS: "depth"}
            return st.just(Name(named.get(parameter.kind, "ancestors")))
        case Kind.PATTERN:
            return patterns(depth=max(depth - 1, 0), guards=guards, inner=True)
        case Kind.CONDITION:
            return conditions()
    raise AssertionError(f"no strategy for {parameter.kind}")


def q_offsets(length: int = 70) -> st.SearchStrategy[int | None]:
    """Of calls with up to `length` rows and keys: rows before the keys, among them, past them, or several of these."""
    return st.one_of(st.none(), st.integers(-length - 5, length + 10))


def key_ranges(kv_len: int) -> st.SearchStrategy[tuple[int, int]]:
    """Positions of the keys of a whole that a call gives, half-open; none of them, all, or those of some part."""
    ends = st.tuples(st.integers(0, kv_len), st.integers(0, kv_len))
    return ends.map(lambda pair: (min(pair), max(pair)))


@st.composite
def index_sets(draw: st.DrawFn, names: bool = True) -> IndexSet:
    """Indices, slices and free names."""
    index = st.builds(Integer, st.one_of(st.integers(-8, 8), st.integers(-50, 210)))
    bound = st.one_of(st.none(), index)
    step = st.one_of(st.none(), st.builds(Integer, st.integers(1, 9)))
    items = [index, index, st.builds(Slice, bound, bound, step)]
    if names:
        items.append(st.sampled_from([Name("tokens"), Name("others")]))
    if draw(st.integers(0, 9)) == 0:
        first = draw(st.integers(0, 30))
        return IndexSet(tuple(map(Integer, range(first, first + 20))))
    return IndexSet(tuple(draw(st.lists(st.one_of(items), min_size=1, max_size=4))))


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> Value:
    """What may stand in `where(..)`: tensors `scalar`, `vector[.]`, `matrix[., .]`."""
    if depth > 0 and draw(st.booleans()):
        args = draw(st.lists(conditions(depth=depth - 1), min_size=2, max_size=3))
        match draw(st.sampled_from(["and", "or", "not"])):
            case "not":
                return Operation("not", (args[0],))
            case word:
                return Operation(word, tuple(args))
    comparison = draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
    return Operation(comparison, (draw(numbers()), draw(numbers())))


@st.composite
def numbers(draw: st.DrawFn, depth: int = 2) -> Value:
    """Arithmetic inside `where(..)`."""
    if depth == 0 or draw(st.integers(0, 2)) == 0:
        leaves = [Name(name) for name in (*SYMBOLS, "scalar")]
        return draw(st.one_of(st.sampled_from(leaves), st.builds(Integer, st.integers(-20, 99))))
    below = numbers(depth=depth - 1)
    operator = draw(st.sampled_from(["+", "-", "*", "//", "%", "neg", "abs", "min", "max", "vector", "matrix"]))
    match operator:
        case "neg":
            inner = draw(below)
            return Integer(-inner.value) if isinstance(inner, Integer) else Operation("neg", (inner,))
        case "abs":
            return Operation("abs", (draw(below),))
        case "//" | "%":
            return Operation(operator, (draw(below), Integer(draw(st.integers(1, 40)))))
        case "vector":
            return Lookup(Name("vector"), (draw(below),))
        case "matrix":
            return Lookup(Name("matrix"), (draw(below), draw(below)))
    return Operation(operator, (draw(below), draw(below)))


@st.composite
def tensors_for(
    draw: st.DrawFn, node: Node, q_len: int, kv_len: int, batch: int = 1, heads: int = 1
) -> dict[str, np.ndarray[Any, Any]]:
    """An array for each free name of `node`."""
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    ranks = {p.tensor: len(p.index) for p in subexpressions(meaning(node)) if isinstance(p, Read)}
    result: dict[str, np.ndarray[Any, Any]] = {}
    drafted = draw(st.sampled_from([1, 3, 5, 63])) if "depth" in free_names(node) else 0
    for name, role in free_names(node).items():
        leading = (batch, heads)[: draw(st.integers(0, 2))]
        match role:
            case "tokens":
                shape = (*leading[:1], draw(st.integers(0, 4)))
                result[name] = random.integers(-kv_len - 2, kv_len + 3, shape)
            case "documents" | "query documents":
                length = kv_len if role == "documents" else q_len
                ids = random.integers(-1, 4, (*leading[:1], length))
                result[name] = ids if draw(st.booleans()) else np.sort(ids, axis=-1)
            case "segments":
                result[name] = np.sort(random.integers(-3, kv_len + 4, draw(st.integers(1, 6))))
            case "lengths":
                result[name] = random.integers(-1, kv_len + 2, leading[:1])
            case "blocks":
                shape = (*leading, draw(st.integers(1, 5)), draw(st.integers(1, 5)))
                result[name] = random.integers(0, 2, shape).astype(np.bool_)
            case "draft ancestors":
                result[name] = random.integers(0, 2**63, (*leading[:1], drafted))
            case "draft depths":
                result[name] = random.integers(-1, drafted + 1, (*leading[:1], drafted))
            case "block lists":
                if len(leading) > 1 and draw(st.booleans()):
                    leading = (batch, draw(st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0])))
                shape = (*leading, draw(st.integers(1, 5)), draw(st.integers(1, 5)))
                result[name] = lists_of(random.integers(0, 2, shape).astype(np.bool_))
            case _:
                shape = (*leading, *(draw(st.integers(1, 6)) for _ in range(ranks.get(name, 0))))
                result[name] = random.integers(-9, 30, shape)
    return result


def lists_of(table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """int32 `[.., rows, 1 + n]`: the blocks that a table marks as lists."""
    count = table.sum(-1, keepdims=True)
    order = np.argsort(~table, axis=-1, kind="stable")
    return np.concatenate([count, np.where(np.arange(table.shape[-1]) < count, order, -1)], -1).astype(np.int32)
