"""The generated text of gradients: a golden file, and what holds for every pattern's."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

import pytest

from spattn.codegen.languages.triton import TRITON
from spattn.codegen.module import backward_source
from spattn.compiler import compile_pattern
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.layout.planner import plan
from tests.codegen.test_golden import LINE, unused
from tests.layout.patterns import PICKED

ENTRY = re.compile(r"grad_(q|kv)_\d+(_combine|_repair)?")
GOLDEN = "columns([::512]) & causal | last(256)"


def fresh(pattern: str) -> str:
    """The text without any cache of this process."""
    condition = meaning(parse(pattern))
    return backward_source(plan(condition), plan(condition, "keys"), str(parse(pattern)), TRITON).text


def test_generated_text_is_as_it_was(golden: Callable[[str, str], None]) -> None:
    first, rest = compile_pattern(GOLDEN).backward_source().text.split("\n", 1)
    assert first.startswith("# Written by spattn ")
    golden("backward/columns.py", rest)


@pytest.mark.parametrize("name", PICKED)
def test_every_module_parses_fits_and_holds_nothing_unused(name: str) -> None:
    text = fresh(PICKED[name])
    assert text == fresh(PICKED[name])
    lines = text.splitlines()
    assert [line for line in lines if not line.startswith("#") and len(line) > LINE] == []
    assert [line for line in lines if line != line.rstrip()] == []
    tree = ast.parse(text)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    entries = {node.name for node in functions if ENTRY.fullmatch(node.name)}
    assert {node.name for node in functions} - read - entries == set()
    for function in functions:
        inner = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        loaded = {node.id for node in inner if isinstance(node.ctx, ast.Load)}
        stored = {node.id for node in inner if isinstance(node.ctx, ast.Store)}
        assert unused(function, stored - loaded) == set(), function.name


def test_each_pass_of_both_layouts_has_a_kernel() -> None:
    one = compile_pattern("local(256) | global([0, 7]) | strided(64)")
    source = one.backward_source()
    found = [(text.kind.direction, text.name) for text in source.passes]
    layouts = one.layout(), one.layout((), "keys")
    assert found == [
        (layout.direction, f"{prefix}_{i}")
        for layout, prefix in zip(layouts, ("grad_q", "grad_kv"), strict=True)
        for i in range(len(layout.passes))
    ]


def test_the_head_tells_queries_from_keys() -> None:
    head = fresh("rows([::7]) | last(4)").split("import triton")[0]
    assert "grad_q 0: queries q = 7*offs_m, which it owns" in head
    assert "grad_kv 0: all keys" in head
    assert "walk queries q = 7*offs_n" in head
