"""Kernels read nothing outside of their tensors: tiles that would pass the last column start earlier."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.interpret


def test_nothing_outside_of_the_tensors_is_read() -> None:
    """In a process of its own, which a read past their end would end."""
    ran = subprocess.run([sys.executable, "-m", "tests.guarded"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"at {ran.stdout.splitlines()[-1]}: {ran.stderr[-2000:]}"
