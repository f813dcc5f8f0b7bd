"""Errors as data, and the one function that draws them.

An error is one sentence (`message`), the place in the pattern (`source`, `span`), a label under the caret and a hint.
`str(error)` draws it. Codes are stable; the table stands in the README.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Characters `start .. stop-1` of a pattern's text."""

    start: int
    stop: int


class SpattnError(ValueError):
    """Whatever spattn refuses.

    Attributes:
        code: Stable identifier, such as `E012`.
        message: One sentence.
        source: The pattern's text, if the error has a place in it.
        span: That place.
        label: What to write beside the caret.
        hint: What to write instead.
        others: Further errors of the same text.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        source: str | None = None,
        span: Span | None = None,
        label: str = "",
        hint: str = "",
        others: Sequence[SpattnError] = (),
    ) -> None:
        self.code = code
        self.message = message
        self.source = source
        self.span = span
        self.label = label
        self.hint = hint
        self.others = tuple(others)
        super().__init__(message)

    def __str__(self) -> str:
        return "\n\n".join(draw(error) for error in (self, *self.others))

    def to_dict(self) -> dict[str, object]:
        """The error as JSON data."""
        span = None if self.span is None else [self.span.start, self.span.stop]
        return {
            "code": self.code,
            "message": self.message,
            "span": span,
            "hint": self.hint,
            "others": [error.to_dict() for error in self.others],
        }


class PatternError(SpattnError):
    """The text is no pattern."""


class BindError(SpattnError):
    """A name or tensor is missing, unknown or of the wrong kind."""


class ArgumentError(SpattnError):
    """Tensors or lengths do not fit each other or the pattern."""


class ConfigError(ArgumentError):
    """A config does not say what its schema lets it say.

    Attributes:
        path: The keys that lead to the place.
        line: In the file, from 1, of what cannot be read at all; None elsewhere.
        column: From 1.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        path: Sequence[str] = (),
        hint: str = "",
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        self.path = tuple(path)
        self.line, self.column = line, column
        super().__init__(code, message, hint=hint)


class UnsupportedError(SpattnError):
    """A right request that no chosen backend can serve."""


class NotDecodableError(UnsupportedError):
    """Decode steps cannot compute a pattern's rows one after the other.

    Attributes:
        witness: A pair as evidence (`spattn.relation.witness.Witness`).
        lengths: The numbers of keys of which one allows the pair and the other does not; none if the key comes after
            its query.
    """

    def __init__(
        self, message: str, witness: object = None, lengths: tuple[int, int] | None = None, *, hint: str = ""
    ) -> None:
        self.witness = witness
        self.lengths = lengths
        super().__init__("E062", message, hint=hint)


class MissingDependencyError(SpattnError):
    """Something that is not installed here is needed."""


def draw(error: SpattnError) -> str:
    """The error as text: headline, the line with a caret, the hint."""
    lines = [f"{error.code}: {error.message}"]
    if error.source is not None and error.span is not None:
        lines += _excerpt(error.source, error.span, error.label)
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    return "\n".join(lines)


def _excerpt(source: str, span: Span, label: str, width: int = 96) -> list[str]:
    """The line of `source` that holds `span`, cut to `width` around it, and carets below."""
    begin = source.rfind("\n", 0, span.start) + 1
    end = source.find("\n", span.start)
    line = source[begin : len(source) if end < 0 else end].rstrip("\r")
    column = span.start - begin
    length = max(1, min(span.stop, begin + len(line)) - span.start)
    left = max(0, min(column - width // 3, len(line) - width))
    shown = "".join(character if character.isprintable() else " " for character in line[left : left + width])
    carets = " " * (column - left) + "^" * max(1, min(length, width - (column - left)))
    return [f"    {shown}", f"    {carets} {label}".rstrip()]
