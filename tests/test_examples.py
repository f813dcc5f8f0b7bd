"""The examples say what they mean: each runs here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import spattn

EXAMPLES = Path(__file__).parent.parent / "examples"
TRAIN = EXAMPLES / "train"
TINY = f"""
pattern: "(last(32) | layers([1]) & columns([::16])) & causal"
attention: [dense, spattn]
width: 32
depth: 2
heads: 2
length: 256
batch: 2
steps: 20
rate: 0.01
validate_every: 10
windows: 2
text: {TRAIN / "sqlite.txt"}
"""


def test_the_demo_runs() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "demo.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "max error of dv" in done.stdout


def test_the_training_learns_and_draws_its_curves(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    pytest.importorskip("matplotlib")
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [sys.executable, TRAIN / "train.py", "tiny.yaml", "--plot", "curves.png", "--json", "figures.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tokens/s" in done.stdout
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    assert [run["name"] for run in runs] == ["dense", "spattn"]
    for run in runs:
        assert [steps for steps, _, _ in run["points"]] == [10, 20]
        assert run["points"][-1][2] < min(run["points"][0][2], 4.5)  # a guess is ln 256 = 5.5


def test_a_ring_decodes_as_a_cache_of_all_tokens_does(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    command = [sys.executable, EXAMPLES / "decode" / "ring.py", "--tokens", "500", "--plot", "memory.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("greatest difference of logits:")[1]) < 1e-4
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("file", sorted(TRAIN.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_patterns_of_the_trainings_are_causal(file: Path) -> None:
    config = pytest.importorskip("yaml").safe_load(file.read_text())
    for layer in range(config["depth"]):
        assert spattn.parse("causal").contains(spattn.parse(config["pattern"], layer=layer))
