"""The text cut into tokens before Lark sees it: limits are checked here, and syntax errors are told from it.

The scan is lazy, so a text that nests too deep is refused after its first few dozen characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from spattn.errors import Span

_TOKEN = re.compile(
    r"""(?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[0-9][0-9A-Za-z_.]*)
      | (?P<foreign>\|\||&&|\*\*|!(?!=)|\^|\+\+|->|=>|:=)
      | (?P<symbol>//|[<>=!]=|[-+*/%~|&()\[\],:=<>])
      | (?P<comment>\#)
      | (?P<odd>[!-~])
      | (?P<alien>[^ \t\r\n])""",
    re.VERBOSE | re.ASCII,
)
OPENERS = {"(": ")", "[": "]"}
INFIX_WORDS = frozenset({"and", "or"})
PREFIXES = frozenset({"~", "not"})
INFIX = frozenset({"|", "&", "-", "+", "*", "//", "/", "%", "<", ">", "<=", ">=", "==", "!="}) | INFIX_WORDS


@dataclass(frozen=True)
class Piece:
    """One token: `kind` is name, number, foreign, symbol, comment, odd, alien or end."""

    kind: str
    text: str
    span: Span

    @property
    def is_operand(self) -> bool:
        """Does an operand begin here? An opening bracket is the other way to begin one."""
        return self.kind == "number" or (self.kind == "name" and self.text not in INFIX_WORDS | PREFIXES)

    @property
    def is_operator(self) -> bool:
        """Does it want an operand after it?"""
        return self.text in INFIX or self.text in PREFIXES


def scan(source: str, stop: int | None = None) -> Iterator[Piece]:
    """The tokens of `source[:stop]`."""
    for found in _TOKEN.finditer(source, 0, len(source) if stop is None else stop):
        yield Piece(found.lastgroup or "", found.group(), Span(*found.span()))
