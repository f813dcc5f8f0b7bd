"""Generated text is read by people: golden files for eight patterns, and what holds for every one of them."""

from __future__ import annotations

import ast
import difflib
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from spattn.codegen import module
from spattn.codegen.languages.triton import TRITON
from spattn.codegen.module import module_source
from spattn.compiler import compile_pattern
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.layout.planner import plan
from tests.layout.patterns import PICKED

PATTERNS = {
    "dense_causal": "causal",
    "window": "last(1024)",
    "dilated": "last(64, dilation=8)",
    "strided": "strided(128) & causal | last(64)",
    "local_global": "local(256) | global([0, 7, -1])",
    "fixed": "fixed(128, 8) & causal",
    "documents": "documents(ids) & causal & last(512)",
    "random_local": "random(3) | local(64)",
}
ENTRY = re.compile(r"attend_\d+(_combine|_repair)?")
LINE = 120
SIMPLE = ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Expr | ast.Return


DECODED = {"decode_window": "causal & (last(4096) | sink(64))", "decode_strided": "causal & (last(128) | strided(128))"}


def decode_text(pattern: str) -> str:
    """The generated text of a decoder's step."""
    return _without_version(compile_pattern(pattern).decode_source().text)


def source(pattern: str) -> str:
    """The generated text; the version, which any release changes, left out."""
    return _without_version(compile_pattern(pattern).source().text)


def _without_version(text: str) -> str:
    first, rest = text.split("\n", 1)
    assert first.startswith("# Written by spattn ")
    return f"# Written by spattn: edits are lost, the templates are in codegen_templates/triton.\n{rest}"


@pytest.mark.parametrize("name", PATTERNS)
def test_generated_text_is_as_it_was(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"{name}.py", source(PATTERNS[name]))


def test_the_difference_of_texts_is_that_of_patterns() -> None:
    """As CONTRIBUTING shows it; and `causal` is a page or two."""
    folder = Path(__file__).parent / "golden"
    causal, window = ((folder / f"{name}.py").read_text().splitlines() for name in ("dense_causal", "window"))
    assert len(causal) < 140
    shown = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text().split("```diff\n")[1].split("```")[0]
    lines = [line for line in difflib.ndiff(causal, window) if line[0] in "-+"]
    assert sorted(line[2:] for line in lines) == sorted(line[2:] for line in shown.splitlines() if line[0] in "<>")


@pytest.mark.parametrize("name", DECODED)
def test_generated_text_of_steps_is_as_it_was(name: str, golden: Callable[[str, str], None]) -> None:
    text = decode_text(DECODED[name])
    assert [line for line in text.splitlines() if len(line) > LINE or line != line.rstrip()] == []
    golden(f"{name}.py", text)


def test_there_is_no_golden_file_too_many() -> None:
    assert {path.stem for path in (Path(__file__).parent / "golden").glob("*.py")} == {*PATTERNS, *DECODED}


def fresh(pattern: str) -> str:
    """The text without any cache of this process."""
    return module_source(plan(meaning(parse(pattern))), str(parse(pattern)), TRITON).text


@pytest.mark.parametrize("name", PICKED)
def test_every_generated_module_parses_fits_and_comes_again(name: str) -> None:
    text = fresh(PICKED[name])
    assert text == fresh(PICKED[name])
    ast.parse(text)
    body = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line for line in body if len(line) > LINE] == []
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


@pytest.mark.parametrize("name", PICKED)
def test_no_function_and_no_name_is_unused(name: str, tmp_path: Path) -> None:
    text = fresh(PICKED[name])
    tree = ast.parse(text)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    entries = {node.name for node in functions if ENTRY.fullmatch(node.name)}
    assert entries
    assert {node.name for node in functions} - read - entries == set()
    for function in functions:
        inner = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        loaded = {node.id for node in inner if isinstance(node.ctx, ast.Load)}
        stored = {node.id for node in inner if isinstance(node.ctx, ast.Store)}
        assert unused(function, stored - loaded) == set(), function.name


def unused(function: ast.FunctionDef, names: set[str]) -> set[str]:
    """Names that are stored alone; one of several that an assignment unpacks may go unread."""
    unpacked = {
        element.id
        for node in ast.walk(function)
        if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Store)
        for element in node.elts
        if isinstance(element, ast.Name)
    }
    return names - unpacked


def test_texts_do_not_depend_on_the_process() -> None:
    """Another process, another hash seed: the same bytes."""
    code = (
        "from spattn.compiler import compile_pattern as c; import sys; sys.stdout.write(c(sys.argv[1]).source().text)"
    )
    pattern = "documents(ids) & causal | global([0, 7, t]) | random(2, block=8)"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code, pattern], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {compile_pattern(pattern).source().text.encode()}


@pytest.mark.skipif(shutil.which("ruff", path=str(Path(sys.executable).parent)) is None, reason="ruff is not installed")
def test_golden_files_are_free_of_what_a_linter_finds() -> None:
    ruff = Path(sys.executable).parent / "ruff"
    folder = Path(__file__).parent / "golden"
    command = [
        str(ruff),
        "check",
        "--isolated",
        "--no-cache",
        "--select",
        "F,E7,E9,W",
        "--line-length",
        str(LINE),
        str(folder),
    ]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", PICKED)
def test_wrapping_and_pruning_change_no_meaning(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrapped text parses to the same module; pruned text has lost nothing but assignments."""
    wrapped = ast.parse(fresh(PICKED[name]))
    monkeypatch.setattr(module, "wrapped", lambda line: [line])
    assert ast.dump(ast.parse(fresh(PICKED[name]))) == ast.dump(wrapped)
    monkeypatch.setattr(module, "pruned", lambda text: text)
    whole = [ast.unparse(node) for node in ast.walk(ast.parse(fresh(PICKED[name]))) if isinstance(node, SIMPLE)]
    kept = [ast.unparse(node) for node in ast.walk(wrapped) if isinstance(node, SIMPLE)]
    lost = Counter(whole) - Counter(kept)
    assert not Counter(kept) - Counter(whole)
    assert all(isinstance(ast.parse(text).body[0], ast.Assign | ast.AnnAssign | ast.AugAssign) for text in lost)
