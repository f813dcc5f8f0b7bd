"""vLLM itself, of a process of its own, where it is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.parametrize("case", ["full", "sliding"])
def test_vllm_generates_by_a_pattern(case: str) -> None:
    command = [sys.executable, "-m", "tests.serving.vllm_engine", case]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.stdout.strip().endswith("right 3"), done.stderr[-4000:]
