"""Without Triton there is nothing to compile with; test_toolchain.py says so."""

from __future__ import annotations

import os
from importlib.util import find_spec

# lines of the source, which no test reads, cost each stage of the compiler a tenth or more
os.environ.setdefault("TRITON_DISABLE_LINE_INFO", "1")

if not find_spec("triton"):
    collect_ignore = ["test_kernels.py", "test_backward_kernels.py", "test_drawn.py", "test_derivation_kernels.py"]
    collect_ignore += ["test_append_kernel.py"]
