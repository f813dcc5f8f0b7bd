"""Templates are strict: each uses just the names that it is given, and nothing but printers' text becomes code."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import meta

from spattn._resources import TEMPLATE_DIR
from spattn.codegen.environment import code, comment, environment
from spattn.codegen.languages.triton import TRITON
from spattn.codegen.model import ROW_STATS, SCANNED
from spattn.codegen.module import module_source
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.gpu.inputs import NOWHERE
from spattn.gpu.requests import WIDTH
from spattn.layout.planner import plan

PASS = {"kernel", "kind", "side", "loops", "by_head"}
NAMES: Mapping[str, set[str]] = {
    "_head.py.jinja": {"version", "digest", "pattern", "condition", "score", "layout", "helpers"},
    "_loop.py.jinja": {"one", "walk", "kind", "side"},
    "_tile_count.py.jinja": {"one", "walk", "kind"},
    "forward.py.jinja": PASS,
    "grad_q.py.jinja": PASS,
    "grad_kv.py.jinja": PASS,
    "decode.py.jinja": {"passes", "kind", "side", "tensors", "signature"},
}
FOLDERS = ("triton",)


def sources(name: str) -> str:
    """A template and, in its place, each that it includes."""
    loader = environment().loader
    assert loader is not None
    text, _, _ = loader.get_source(environment(), name)
    return re.sub(r'\{% include "([^"]+)" %\}', lambda found: sources(found[1]), text)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_template_uses_just_the_names_that_it_is_given(folder: str, name: str) -> None:
    tree = environment().parse(sources(f"{folder}/{name}"))
    assert meta.find_undeclared_variables(tree) == NAMES[name]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_template_is_rendered_or_included(folder: str) -> None:
    files = {path.name for path in (TEMPLATE_DIR / folder).iterdir()}
    included = {
        name
        for file in files
        for name in re.findall(r'include "\w+/([^"]+)"', (TEMPLATE_DIR / folder / file).read_text())
    }
    assert files == included | NAMES.keys()


def test_a_misspelt_name_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        environment().from_string("{{ kernle }}").render(kernel=code("x"))
    with pytest.raises(jinja2.UndefinedError):
        environment().from_string("{{ kernel.nmae }}").render(kernel=code("x"))


def test_text_that_no_printer_made_is_refused() -> None:
    with pytest.raises(TypeError, match="no printer made"):
        environment().from_string("{{ text }}").render(text="import os")
    with pytest.raises(TypeError, match="no printer made"):
        environment().from_string("{{ text }}").render(text=code("a") + "b")


LAYOUT = plan(meaning(parse("local(4) | global([0, 7])")))
PLAIN = module_source(LAYOUT, "plain", TRITON).text
HOSTILE = [
    "\n",
    "\r",
    "\x0c",
    "\u2028",
    '"""',
    "'''",
    "{{ 7 * 7 }}",
    "{% include 'x' %}",
    "{# #}",
    "#",
    "\\",
    "\\\n",
    "\0",
    "%",
    "é",
]


@settings(max_examples=50)
@given(st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8)), max_size=6).map("".join))
def test_a_patterns_text_stays_in_its_comment(text: str) -> None:
    found = module_source(LAYOUT, text, TRITON).text
    assert found.isascii()
    assert ast.dump(ast.parse(found)) == ast.dump(ast.parse(PLAIN))
    assert found.splitlines()[3:] == PLAIN.splitlines()[3:]
    assert "\n" not in comment(text)
    assert comment(text).encode("ascii").decode("unicode_escape") == text


def test_names_of_tensors_stay_in_comments() -> None:
    """What a user calls a tensor is no identifier of the kernel."""
    text = module_source(
        plan(meaning(parse("documents(import_os) & causal & where(tl[k] < triton)"))), "x", TRITON
    ).text
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    assert "import_os" not in names
    assert not re.search(r"\btl_ptr|triton_ptr", text)


def test_what_kernels_and_launches_both_count_by_is_the_same() -> None:
    """Kernels cannot import what launches do, nor launches what Triton must compile: each says it once."""
    number = re.compile(r"constexpr\((\d+)(?: << (\d+))?\)")
    numbers = {name: number.search(text) for name, text in TRITON.helpers.statements.items()}
    said = {name: int(found[1]) << int(found[2] or 0) for name, found in numbers.items() if found}
    assert said == {"NOWHERE": NOWHERE, "ROW_STATS": ROW_STATS, "SCANNED": SCANNED, "REQUEST": WIDTH}
