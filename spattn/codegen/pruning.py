"""Assignments that nobody reads, removed: templates write what some pattern needs, a pattern keeps what it reads."""

from __future__ import annotations

import re

FUNCTION = re.compile(r"(?m)^(?=@triton\.jit)")
ASSIGNMENT = re.compile(r" +([a-zA-Z_]\w*)(?:: tl\.constexpr)? [-+&|]?= ")
NAME = re.compile(r"[a-zA-Z_]\w*")


def pruned(source: str) -> str:
    """The functions of `source` without assignments to names that they never read; right-hand sides have no effects."""
    return "".join(_pruned_function(part) for part in FUNCTION.split(source))


def _pruned_function(source: str) -> str:
    lines = source.splitlines(keepends=True)
    head = next((i for i, line in enumerate(lines) if line.startswith("):")), 0)  # parameters read nothing
    while True:
        read = {name for line in lines[head:] for name in _read(line)}
        kept = [line for line in lines if (target := _target(line)) is None or target in read]
        if len(kept) == len(lines):
            return "".join(kept)
        lines = kept


def _target(line: str) -> str | None:
    found = ASSIGNMENT.match(line)
    return found[1] if found else None


def _read(line: str) -> list[str]:
    """Names that a line reads; its own target counts where the right-hand side speaks of it."""
    if line.lstrip().startswith(("#", '"""')):
        return []
    found = ASSIGNMENT.match(line)
    return NAME.findall(line[found.end() :] if found else line)
