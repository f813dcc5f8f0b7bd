"""Faults of an assembler, as far as its own listing shows them."""

from __future__ import annotations

import re

INSTRUCTION = re.compile(r"(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s+([^;]*)")
UNIFORM = re.compile(r"(gdesc\[|desc\[|)UR(\d+)")


def unset_registers(listing: str) -> list[str]:
    """Instructions that read a uniform register which none above them writes, so none at all: loops go upwards."""
    written: set[int] = set()
    found = []
    for line in listing.splitlines():
        if "UR" not in line or not (instruction := INSTRUCTION.search(line)):
            continue
        name, operands = instruction[1], instruction[2].split(",")
        writes = re.fullmatch(r"\s*UR(\d+)\s*", operands[0])
        reads = {number for operand in operands[bool(writes) :] for number in _read(name, operands, operand)}
        if not reads <= written:
            found.append(line.strip())
        if writes:
            first = int(writes[1])
            written.update(range(first, first + (2 if ".64" in name or ".WIDE" in name else 1)))
    return found


def _read(name: str, operands: list[str], operand: str) -> set[int]:
    """The uniform registers of an operand."""
    found: set[int] = set()
    for kind, number in UNIFORM.findall(operand):
        first, count = int(number), 1
        if kind == "gdesc[":
            # the descriptors of both factors, or of the second where the first is in registers
            first, count = (first + 2, 2) if re.match(r"\s*R\d", operands[1]) else (first, 4)
        elif kind == "desc[" or (name.startswith("U") and ".64" in name and not name.startswith("ULDC")):
            count = 2
        found.update(range(first, first + count))
    return found
