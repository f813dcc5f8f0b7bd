"""The functions that a language's kernels call, read as text: which of them a kernel needs, and how it gets them."""

from __future__ import annotations

import ast
import hashlib
import re
import textwrap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import spattn.kernels
from spattn.codegen.environment import code
from spattn.codegen.wrapping import WIDTH

NAME = re.compile(r"[a-zA-Z_]\w*")
COMMENT = re.compile(r'#.*|"""[^"]*"""')


@dataclass(frozen=True)
class Helpers:
    """A module of `spattn.kernels`.

    Attributes:
        module: Its name.
    """

    module: str

    @cached_property
    def text(self) -> str:
        """All of it."""
        return (Path(spattn.kernels.__file__).parent / f"{self.module.rpartition('.')[2]}.py").read_text()

    @cached_property
    def digest(self) -> str:
        """What changes when a helper does; kernels that were generated or measured for others are not taken."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @cached_property
    def statements(self) -> dict[str, str]:
        """The source of each constant and function, by its name, in order."""
        lines, found = self.text.splitlines(), {}
        for node in ast.parse(self.text).body:
            match node:
                case ast.FunctionDef(name=name):
                    first = min(node.lineno, *(one.lineno for one in node.decorator_list))
                case ast.Assign(targets=[ast.Name(id=name)]):
                    first = node.lineno
                case _:
                    continue
            found[name] = "\n".join(lines[first - 1 : node.end_lineno])
        return found

    def spoken(self, text: str) -> list[str]:
        """Names of helpers that a text speaks of, in their order."""
        code_alone = COMMENT.sub("", text)
        words = set(NAME.findall(code_alone))
        return [name for name in self.statements if name in words]

    def imported(self, text: str) -> str:
        """The statement that imports what a text speaks of."""
        names = sorted(self.spoken(text), key=lambda name: (not name.isupper(), name))
        line = f"from {self.module} import {', '.join(names)}"
        if len(line) > WIDTH:
            filled = textwrap.fill(", ".join(names) + ",", WIDTH, initial_indent="    ", subsequent_indent="    ")
            line = f"from {self.module} import (\n{filled}\n)"
        return code(line if names else "")

    def inlined(self, text: str) -> str:
        """What a text speaks of, and what that needs, written out."""
        needed: list[str] = []
        for _ in self.statements:
            more = self.spoken("\n".join([text, *(self.statements[name] for name in needed)]))
            if more == needed:
                break
            needed = more
        return code("\n".join(_apart(self.statements[name]) for name in needed))


def _apart(statement: str) -> str:
    """Two empty lines before a function."""
    return f"\n\n{statement}" if statement.startswith(("@", "def")) else statement
