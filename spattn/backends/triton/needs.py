"""What a compiled kernel needs of the machine, as the assemblers tell: registers, spills, warnings."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Needs:
    """Of one kernel.

    Attributes:
        registers: A thread's; None where the assembler does not say.
        spills: Bytes that a thread stores and loads because registers ran out.
        warnings: WGMMA that had to be serialised, mostly.
    """

    registers: int | None
    spills: int | None
    warnings: tuple[str, ...] = ()


def needs(asm: Mapping[str, Any]) -> Needs:
    """What a kernel needs, by its assembly."""
    if "ptx" in asm:
        return _of_ptx(str(asm["ptx"]))
    code = str(asm.get("amdgcn", ""))
    registers, spills = (re.search(rf"\.{name}:\s*(\d+)", code) for name in ("vgpr_count", "vgpr_spill_count"))
    # a spilled register is four bytes, stored and loaded
    return Needs(_number(registers), None if spills is None else 8 * int(spills[1]))


def _of_ptx(ptx: str) -> Needs:
    said = _ptxas(ptx)
    stores, loads = (re.search(rf"(\d+) bytes spill {what}", said) for what in ("stores", "loads"))
    spills = None if stores is None or loads is None else int(stores[1]) + int(loads[1])
    warnings = tuple(line.strip() for line in said.splitlines() if "wgmma" in line.lower())
    return Needs(_number(re.search(r"Used (\d+) registers", said)), spills, warnings)


def _ptxas(ptx: str) -> str:
    """What ptxas says of a text; its version for Blackwell reads the texts for that."""
    import triton

    architecture = re.search(r"\.target\s+(sm_\w+)", ptx)
    name = architecture[1] if architecture else "sm_90a"
    tools = triton.knobs.nvidia
    tool = tools.ptxas_blackwell if int(re.sub(r"\D", "", name)) >= 100 else tools.ptxas
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [tool.path, "-v", f"--gpu-name={name}", "-o", os.devnull, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def _number(found: re.Match[str] | None) -> int | None:
    return None if found is None else int(found[1])
