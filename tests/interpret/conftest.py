"""A process in which Triton compiles collects nothing here but the test that says what is missing."""

from __future__ import annotations

import os
from importlib.util import find_spec

if os.environ.get("TRITON_INTERPRET") != "1" or not (find_spec("torch") and find_spec("triton")):
    collect_ignore_glob = ["test_[!t]*.py"]  # all but test_toolchain.py, which says what is missing
else:
    from tests.interpret.quick import quicken

    quicken()
