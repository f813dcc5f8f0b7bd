"""`spattnc bench` is `python -m spattn.bench`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from spattn.bench import __main__, program
from spattn.bench.options import HELP, Options

LINES = [
    (),
    ("unions", "sw1024_16k_d128", "--length", "4k..64k", "--direction", "both", "--tuned", "all", "--times", "3"),
    ("--variants", "--building", "--startup", "--budget", "400", "--device", "cpu", "--json", "-"),
    ("peers", "--peer", "spattn,flex", "--backend", "triton,torch", "--plot", "f.png"),
    ("--draw", "f.json", "-o", "f.png", "--list"),
    ("decode", "--batch", "1,8", "--stored", "ring", "--numbers", "all", "--new", "4", "--ragged"),
]


@pytest.mark.parametrize("arguments", LINES)
def test_the_same_options(spattnc, monkeypatch, arguments):
    seen: list[Options] = []
    monkeypatch.setattr(program, "run", lambda options: seen.append(options) or True)
    assert spattnc("bench", *arguments).status == 0
    assert __main__.main(arguments) == 0
    assert seen[0] == seen[1]
    assert all(isinstance(path, Path | None) for path in (seen[0].json, seen[0].plot, seen[0].draw, seen[0].output))


def test_a_wrong_answer_is_no(spattnc, monkeypatch):
    monkeypatch.setattr(program, "run", lambda options: False)
    assert spattnc("bench").status == __main__.main([]) == 1


def test_it_runs(spattnc):
    pytest.importorskip("torch")
    answer = spattnc("bench", "peers", "--device", "cpu", "--budget", "0")
    assert answer.status == 0
    assert "left out, as the time was spent:" in answer.out


@pytest.mark.parametrize("arguments", [("--times", "0"), ("--direction", "sideways"), ("--device", "tpu"), ("--nope",)])
def test_usage(spattnc, capsys, arguments):
    assert spattnc("bench", *arguments).status == 2
    with pytest.raises(SystemExit) as ended:
        __main__.main(arguments)
    assert ended.value.code == 2


def test_an_unknown_name(spattnc):
    pytest.importorskip("torch")
    answer = spattnc("bench", "sw1024_16k_d12", "--device", "cpu")
    assert (answer.status, answer.out) == (2, "")
    assert "did you mean 'sw1024_16k_d128'?" in answer.err


def test_help(spattnc):
    answer = spattnc("bench", "--help")
    assert answer.status == 0
    assert "Usage: spattnc bench" in answer.out
    assert set(HELP) == {one.name for one in fields(Options)}
