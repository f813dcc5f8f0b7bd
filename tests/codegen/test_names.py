"""Generated kernels define every name that they read: each atom alone and in all that moves or shrinks positions."""

from __future__ import annotations

import ast
import builtins
import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings

from spattn.compiler import Compiled, compile_pattern
from spattn.expressions.algebra import symbols
from spattn.frontend.atoms import ATOMS
from spattn.frontend.syntax import Node
from spattn.relation.heads import specialised
from tests.strategies import patterns

ATOM_TEXTS = {
    "full": "full",
    "none": "none",
    "causal": "causal",
    "anticausal": "anticausal",
    "local": "local(5, 2, dilation=2)",
    "last": "last(6)",
    "strided": "strided(4)",
    "diagonals": "diagonals([0, 3, t])",
    "chunk": "chunk(6, back=1)",
    "fixed": "fixed(8, 2)",
    "sink": "sink(3)",
    "prefix": "prefix(3)",
    "tail": "tail(3)",
    "columns": "columns([3:9, -1, t])",
    "rows": "rows([3:9, -1])",
    "global": "global([0, -2, 5:])",
    "heads": "heads([-1])",
    "batch": "batch([-1, 1:])",
    "neighborhood": "neighborhood([4, 6], 3)",
    "blockwise": "blockwise(3, local(1))",
    "random": "random(2, block=8)",
    "documents": "documents(ids)",
    "within": "within(ids, last(3))",
    "blocks": "blocks(table, 8)",
    "listed_blocks": "listed_blocks(lists, 8)",
    "draft": "draft(ancestors, depth, last(5))",
    "valid": "valid(lengths)",
    "where": "where(num_heads > 2)",
}
CONDITIONS = (
    "where(batch_size > 1 or h < num_heads // 2)",
    "where(q < num_heads * 4)",
    "where(k < h + b)",
    "where(k % 3 == min(num_heads, 2) // 2)",
    "where(batch_size * num_heads > k)",
    "where(x[num_heads] > q)",
    "where(q - k < 4 * (h + 1))",
    "where(q * num_heads * 2000000000 > k * 1900000000)",
    "where(kv_len > num_heads)",
)
WORDS = ("longnet(16, 4)", "tri_shape(2, 5, 3)", "bigbird(block=8)", "longformer(3, [0, -1, 4:7])", "prefix_lm(4)")
FRAMES = (
    "{}",
    "within(ids, {} & causal)",
    "blockwise(8, {} | local(1))",
    "blockwise(2, blockwise(3, ~({} | sink(1))))",
    "within(ids, blockwise(4, {}) - heads([0]))",
)


def undefined(text: str) -> set[tuple[str, str]]:
    """(function, name) of what is read before the function, its parameters or the module have it."""
    tree = ast.parse(text)
    known = {*dir(builtins), *(name for node in tree.body for name in _names(node))}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {(function.name, name) for function in functions for name in _undefined(function, known)}


def _names(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name):
            return [name]
        case ast.Import(names) | ast.ImportFrom(names=names):
            return [one.asname or one.name for one in names]
        case ast.Assign(targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def _undefined(function: ast.FunctionDef, known: set[str]) -> set[str]:
    inner = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    first = dict.fromkeys((argument.arg for argument in function.args.args), 0)
    for node in sorted(inner, key=lambda node: node.lineno):
        if isinstance(node.ctx, ast.Store):
            first.setdefault(node.id, node.lineno)
    read = [node for node in inner if isinstance(node.ctx, ast.Load) and node.id not in known]
    return {node.id for node in read if node.lineno < first.get(node.id, 1 << 30)}


def assert_defined(compiled: Compiled) -> None:
    """In both directions, for all values of what is known of heads and batch entries."""
    for values in itertools.product((False, True), repeat=len(compiled.pair_conditions)):
        for source in (compiled.source(values), compiled.backward_source(values)):
            assert undefined(source.text) == undefined(source.standalone) == set()


def test_what_is_undefined_is_found() -> None:
    text = "import math\n\ndef f(x):\n    y = x + z\n    z = math.pi\n    return y + len(w)\n"
    assert undefined(text) == {("f", "z"), ("f", "w")}


def test_every_atom_is_tried() -> None:
    assert ATOM_TEXTS.keys() == ATOMS.keys() - {"layers"}


def written() -> Iterator[str]:
    """Each text in each frame where it has a meaning."""
    outermost = {ATOM_TEXTS[name] for name, spec in ATOMS.items() if spec.outermost} | {"bigbird(block=8)"}
    for text in (*ATOM_TEXTS.values(), *CONDITIONS, *WORDS):
        yield from (frame.format(text) for frame in FRAMES[: 1 if text in outermost else None])


@pytest.mark.parametrize("pattern", list(written()))
def test_kernels_define_what_they_read(pattern: str) -> None:
    assert_defined(compile_pattern(pattern))


@settings(max_examples=15)
@given(patterns(depth=2))
def test_kernels_of_drawn_patterns_define_what_they_read(node: Node) -> None:
    compiled = compile_pattern(node)
    if len(compiled.pair_conditions) < 4:
        assert_defined(compiled)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("about", ["heads([-1])", "batch([-1])", "where(num_heads > 2)", "where(batch_size == 1)"])
def test_heads_and_batch_entries_alone_part_a_launch(about: str, frame: str) -> None:
    """No layout speaks of them, wherever they stand."""
    compiled = compile_pattern(frame.format(about))
    assert compiled.pair_conditions
    for values in itertools.product((False, True), repeat=len(compiled.pair_conditions)):
        known = dict(zip(compiled.pair_conditions, values, strict=True))
        plain = specialised(compiled.condition, known)
        assert not {"h", "b", "num_heads", "batch_size"} & symbols(plain)


def test_kernels_are_told_the_batch_size_where_they_ask() -> None:
    """At each launch: no batch size compiles anything."""
    asking = compile_pattern("where(q < batch_size)").source().text
    assert re.search(r'do_not_specialize=\[[^]]*"batch_size"', asking)
    assert "batch_size" not in compile_pattern("where(q < num_heads)").source().text
