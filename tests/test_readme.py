"""The README is true: its Python runs and its commands print what it shows."""

import doctest
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

README = Path(__file__).parent.parent / "README.md"


def test_the_python_of_the_readme_gives_what_it_shows() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    failed, attempted = doctest.testfile(str(README), module_relative=False)
    assert attempted > 10
    assert failed == 0


def shown_commands() -> list[tuple[str, str]]:
    """Each `$ command` of the README and the lines below it."""
    blocks = [block for i, block in enumerate(README.read_text().split("```")) if i % 2]
    shown = [block.strip().split("\n", 1) for block in blocks if block.strip().startswith("$ ")]
    return [(command[2:], output.strip()) for command, output in shown]


@pytest.mark.parametrize(("command", "output"), shown_commands())
def test_the_commands_of_the_readme_print_what_it_shows(command: str, output: str) -> None:
    from spattn.cli.app import app

    program, *arguments = shlex.split(command)
    assert program == "spattnc"
    result = CliRunner().invoke(app, arguments)
    assert result.stdout.strip() == output
