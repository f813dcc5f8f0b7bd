"""The wheel: what it must carry, it carries, and an installation finds it without the repository."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the build backend is not installed")

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("grammar", "codegen_templates")

REPORT = """
import json, spattn, spattn._resources as resources
found = {"package": spattn.__file__, "grammar": str(resources.GRAMMAR_DIR), "templates": str(resources.TEMPLATE_DIR)}
print(json.dumps(found))
"""


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment or None, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=REPOSITORY)
    [built] = folder.glob("spattn-*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", str(folder))
    run(*pip, str(wheel), cwd=folder)
    return folder


def _travelling(folder: str) -> set[str]:
    return {
        f"spattn/{path.relative_to(REPOSITORY).as_posix()}"
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_the_two_folders_travels(wheel, folder):
    carried = set(zipfile.ZipFile(wheel).namelist())
    assert _travelling(folder)
    assert _travelling(folder) <= carried


def test_the_wheel_holds_the_package_and_no_more(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"spattn"}
    assert "spattn/py.typed" in names
    assert not [name for name in names if name.endswith((".pyc", ".orig"))]


def test_an_installation_finds_grammar_and_templates(site, tmp_path):
    found = json.loads(run(sys.executable, "-c", REPORT, cwd=tmp_path, PYTHONPATH=str(site), HOME=str(tmp_path)))
    for path in map(Path, found.values()):
        assert path.is_relative_to(site)
        assert path.exists()
    assert any(Path(found["grammar"]).glob("*.lark"))
    assert any(Path(found["templates"]).rglob("*.jinja"))


def test_the_command_is_declared(site):
    [entry_points] = site.glob("spattn-*.dist-info/entry_points.txt")
    assert "spattnc = spattn.cli:main" in entry_points.read_text()


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_python_file_in_a_moved_folder(folder):
    """The build backend refuses an editable install if there is one; templates end in .py.jinja."""
    assert not list((REPOSITORY / folder).rglob("*.py"))
