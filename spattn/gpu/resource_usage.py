"""What a compiled kernel needs of the machine, as the assemblers tell: registers, spills, warnings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triton.backends.compiler import GPUTarget


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


def needs(asm: Mapping[str, Any], target: GPUTarget, options: Mapping[str, Any]) -> Needs:
    """What a kernel needs.

    Args:
        asm: Its assembly.
        target: What it was compiled for, Triton's.
        options: What Triton was told of it.
    """
    if "ptx" in asm:
        return _of_ptx(_ptxas(str(asm["ptx"]), target, options))
    code = str(asm.get("amdgcn", ""))
    registers, spills = (re.search(rf"\.{name}:\s*(\d+)", code) for name in ("vgpr_count", "vgpr_spill_count"))
    # a spilled register is four bytes, stored and loaded
    return Needs(_number(registers), None if spills is None else 8 * int(spills[1]))


def _of_ptx(said: str) -> Needs:
    stores, loads = (re.search(rf"(\d+) bytes spill {what}", said) for what in ("stores", "loads"))
    spills = None if stores is None or loads is None else int(stores[1]) + int(loads[1])
    warnings = tuple(line.strip() for line in said.splitlines() if "wgmma" in line.lower())
    return Needs(_number(re.search(r"Used (\d+) registers", said)), spills, warnings)


def _ptxas(ptx: str, target: GPUTarget, options: Mapping[str, Any]) -> str:
    """What ptxas says of a text, assembled once more as Triton does: which ptxas, and its options, vary by version."""
    import triton
    from triton.compiler import make_backend

    backend = make_backend(target)
    with triton.knobs.nvidia.scope(), redirect_stdout(StringIO()) as said:
        triton.knobs.nvidia.dump_ptxas_log = True
        backend.make_cubin(ptx, {}, backend.parse_options(dict(options)), target.arch)
    return said.getvalue()


def _number(found: re.Match[str] | None) -> int | None:
    return None if found is None else int(found[1])
