"""Without Triton there is nothing to compile with; test_toolchain.py says so."""

from __future__ import annotations

from importlib.util import find_spec

if not find_spec("triton"):
    collect_ignore = ["test_kernels.py", "test_backward_kernels.py", "test_drawn.py", "test_derivation_kernels.py"]
    collect_ignore += ["test_append_kernel.py"]
