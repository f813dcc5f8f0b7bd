"""Why a text is no pattern: from the place where Lark stopped to an error that says what is missing."""

from __future__ import annotations

from spattn.errors import PatternError, Span
from spattn.frontend.tokens import INFIX, OPENERS, Piece, scan

_ARITHMETIC = INFIX - {"|", "&", "-", "and", "or"}


def diagnose(source: str, position: int) -> PatternError:
    """The error of the text whose first wrong token begins at `position`."""
    stack: list[Piece] = []
    in_where: list[bool] = []
    before: Piece | None = None
    for piece in scan(source):
        if piece.span.stop > position:
            return _Stop(source, piece, before, stack, any(in_where)).error()
        if piece.text in OPENERS:
            stack.append(piece)
            in_where.append(before is not None and before.text == "where")
        elif piece.text in (")", "]") and stack:
            stack.pop()
            in_where.pop()
        before = piece
    end = len(source.rstrip(" \t\r\n"))
    return _Stop(source, Piece("end", "", Span(end, end)), before, stack, any(in_where)).error()


class _Stop:
    """The wrong token, the one before it and the brackets open there."""

    def __init__(self, source: str, here: Piece, before: Piece | None, stack: list[Piece], in_where: bool) -> None:
        self.source, self.here, self.before, self.stack, self.in_where = source, here, before, stack, in_where

    def error(self) -> PatternError:
        here, before = self.here, self.before
        wants = before is None or before.is_operator or before.text in {",", "=", *OPENERS}
        if here.kind == "end":
            return self._unclosed() if self.stack else self._operand()
        if here.text in (")", "]"):
            return self._closing(wants)
        if here.text in _ARITHMETIC and not self.in_where:
            return self._arithmetic()
        if self.in_where and here.text in {"|", "&", "~"}:
            return self._symbol_in_where()
        if here.is_operator and wants or here.text == "," and wants:
            return self._operand()
        if not wants and (here.is_operand or here.text in OPENERS or here.text in {"~", "not"}):
            return self._joint()
        return self._unexpected()

    def _make(self, code: str, message: str, label: str, hint: str, span: Span | None = None) -> PatternError:
        return PatternError(code, message, source=self.source, span=span or self.here.span, label=label, hint=hint)

    def _unclosed(self) -> PatternError:
        opener = self.stack[-1]
        closer = OPENERS[opener.text]
        place = self._place(opener.span.start)
        return self._make("E002", f"{opener.text!r} at {place} is not closed", f"{closer!r} missing", f"add {closer!r}")

    def _place(self, position: int) -> str:
        line = self.source.count("\n", 0, position)
        column = position - self.source.rfind("\n", 0, position)
        return f"column {column}" if line == 0 else f"line {line + 1}, column {column}"

    def _closing(self, wants: bool) -> PatternError:
        if not self.stack:
            return self._make("E003", f"{self.here.text!r} closes nothing", "nothing is open here", "delete it")
        if wants and not (self.before is self.stack[-1] and OPENERS[self.stack[-1].text] != self.here.text):
            return self._operand()
        if OPENERS[self.stack[-1].text] != self.here.text:
            return self._unclosed()
        return self._unexpected()

    def _operand(self) -> PatternError:
        before = "at the start" if self.before is None else f"after {self.before.text!r}"
        if self.here.kind != "end" and self.before is not None:
            before = f"between {self.before.text!r} and {self.here.text!r}"
        hint = "write a value there, or delete the comma" if self._comma() else "write a pattern there, such as causal"
        return self._make("E004", f"something is missing {before}", "missing before this", hint)

    def _comma(self) -> bool:
        return "," in {self.here.text, "" if self.before is None else self.before.text}

    def _joint(self) -> PatternError:
        assert self.before is not None
        in_list = bool(self.stack) and self.stack[-1].text == "["
        pair = f"between {self.before.text!r} and {self.here.text!r}"
        if in_list:
            return self._make("E005", f"a comma is missing {pair}", "missing before this", "separate items by ','")
        hint = "join patterns by | (either) or & (both), arguments by ','"
        return self._make("E005", f"an operator is missing {pair}", "missing before this", hint)

    def _arithmetic(self) -> PatternError:
        hint = "patterns are joined by | & - and ~; arithmetic stands inside where(..)"
        return self._make("E006", f"{self.here.text!r} is no operator of patterns", "not an operator here", hint)

    def _symbol_in_where(self) -> PatternError:
        hint = "inside where(..) write and, or, not"
        return self._make("E006", f"{self.here.text!r} is no operator of where(..)", "not an operator here", hint)

    def _unexpected(self) -> PatternError:
        hint = "arithmetic stands inside where(..)" if self.here.kind == "number" else ""
        hint = "a set is an argument, as in columns([0, 7])" if self.here.text == "[" else hint
        if self.here.text == "/":
            return self._make("E006", "'/' is no operator of where(..)", "not an operator", "write // (rounds down)")
        return self._make("E010", f"{self.here.text!r} cannot stand here", "not expected", hint)
