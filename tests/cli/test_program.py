"""The program as a whole: how fast it starts, how it reads its arguments, how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from spattn.cli import app
from spattn.errors import MissingDependencyError

HEAVY = ("islpy", "jinja2", "lark", "matplotlib", "numpy", "rich", "sympy", "torch", "triton")
COMMANDS = ("emit", "explain", "live", "show", "check", "verify", "diff", "atoms", "cache", "doctor")


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_help_answers_at_once():
    """A quarter of a second is the aim, at a quiet machine; here a busy one has some slack."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        done = _run(sys.executable, "-m", "spattn", "--help")
        seconds.append(time.perf_counter() - begin)
        assert done.returncode == 0
    print(f"spattnc --help: {min(seconds):.3f} s")
    assert min(seconds) < 0.6


def test_help_imports_nothing_heavy():
    code = f"import sys, spattn.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert _run(sys.executable, "-c", code).stdout.strip() == "[]"


def test_importing_spattn_is_light():
    code = f"import sys, spattn; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert _run(sys.executable, "-c", code).stdout.strip() == "[]"


def test_no_command_but_verify_needs_torch():
    code = (
        "import sys; from spattn.cli.app import status; sys.modules['torch'] = None\n"
        "print([status(a.split()) for a in ('check causal', 'emit causal -o /dev/null', 'show causal -n 4',"
        " 'explain causal', 'diff causal full', 'atoms local', 'live causal')], file=sys.stderr)"
    )
    assert _run(sys.executable, "-c", code).stderr.splitlines()[-1] == "[0, 0, 0, 0, 1, 0, 0]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(spattnc, command):
    answer = spattnc(command, "--help")
    assert answer.status == 0
    assert answer.err == ""
    assert "Usage: spattnc" in answer.out


def test_version(spattnc):
    assert spattnc("--version").out.startswith("spattnc 0.")


def test_a_pattern_from_standard_input_and_from_a_file(spattnc, tmp_path):
    path = tmp_path / "pattern"
    path.write_text("causal &\n  last(4)\n")
    assert spattnc("emit", "-", "--stage", "pattern", stdin="causal & last(4)\n").out == "causal & last(4)\n"
    assert spattnc("emit", f"@{path}", "--stage", "pattern").out == "causal & last(4)\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nonsense",),
        ("nonsense",),
        ("check",),
        ("emit", "@/no/such/file"),
        ("emit", "causal", "--stage", "cubism"),
        ("emit", "last(w)", "--set", "w"),
        ("emit", "last(w)", "--set", "w=wide"),
        ("emit", "last(w)", "--set", "9=9"),
        ("emit", "causal", "--stage", "ptx", "--target", "cuda:abc"),
        ("show", "causal", "--format", "png"),
        ("verify", "causal", "-n", "1000000"),
        ("atoms", "locl"),
    ],
)
def test_usage(spattnc, arguments):
    answer = spattnc(*arguments)
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err
    assert "Traceback" not in answer.err


def test_an_error_is_drawn_with_its_caret(spattnc):
    answer = spattnc("explain", "local(8) | locl(3)")
    assert answer.status == 2
    assert answer.out == ""
    lines = answer.err.splitlines()
    assert lines[0].startswith("error E012:")
    assert lines[2].index("^") == lines[1].index("locl")


def test_what_is_missing_here(spattnc, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise MissingDependencyError("E050", "a PNG needs matplotlib", hint="pip install 'spattn[viz]'")

    monkeypatch.setattr("spattn.analysis.png.png_picture", refuse)
    answer = spattnc("show", "causal", "-o", "mask.png")
    assert answer.status == 3
    assert "pip install 'spattn[viz]'" in answer.err


def test_a_library_that_is_not_installed(spattnc, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    answer = spattnc("show", "causal", "-o", "mask.png")
    assert answer.status == 3
    assert "matplotlib" in answer.err


def _failing(error: BaseException):
    def fail(*arguments: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (RuntimeError("oh"), 70)])
def test_other_ends(spattnc, monkeypatch, error, status):
    monkeypatch.setattr("spattn.cli.atoms._table", _failing(error))
    answer = spattnc("atoms")
    assert answer.status == status
    assert "Traceback" not in answer.err


def test_a_closed_pipe_is_no_news():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "spattn", "atoms"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_picture_without_block_characters(encoding):
    done = _run(sys.executable, "-m", "spattn", "show", "causal", "-n", "3", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert "|##    |" in done.stdout or "|#     |" in done.stdout or "|######|" in done.stdout
    assert done.stdout.isascii()


def test_colours_are_never_used():
    done = _run(sys.executable, "-m", "spattn", "check", "nope", FORCE_COLOR="1")
    assert "\x1b" not in done.stdout + done.stderr


def test_main_ends_with_the_status(monkeypatch):
    monkeypatch.setattr("sys.argv", ["spattnc", "check", "nope"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 1


def test_standard_input_and_files_are_read_up_to_the_limit(spattnc, tmp_path):
    text = "causal" + " " * 20_000
    path = tmp_path / "long"
    path.write_text(text)
    for answer in (spattnc("show", "-", stdin=text), spattnc("show", f"@{path}")):
        assert answer.status == 2
        assert answer.err.startswith("error E091: ")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no endless file here")
def test_an_endless_file_is_refused(spattnc):
    assert "E091" in spattnc("check", "@/dev/zero").err
