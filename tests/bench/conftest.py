"""The benchmark's command line, run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

SMALL = "dense_causal_16k_d64@48"


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str
    path: Path

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """`bench(NAME, ..)`: on the CPU, with one call to warm up; results are in a file."""
    from spattn.bench import __main__, timing

    monkeypatch.setattr(timing, "WARM", 1)
    path = tmp_path / "found.json"

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = __main__.main([*arguments, "--device", "cpu", "--times", "1", "--json", str(path)])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err, path)

    return run
