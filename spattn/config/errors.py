"""Errors of configs."""

from __future__ import annotations

from collections.abc import Sequence

from spattn.errors import ArgumentError


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


def wrong(path: Sequence[str], message: str, hint: str = "", code: str = "E070") -> ConfigError:
    """The error of what stands at `path`."""
    return ConfigError(code, message, path=path, hint=hint)
