"""How the errors of configs are made."""

from __future__ import annotations

from collections.abc import Sequence

from spattn.errors import ConfigError


def wrong(path: Sequence[str], message: str, hint: str = "", code: str = "E070") -> ConfigError:
    """The error of what stands at `path`."""
    return ConfigError(code, message, path=path, hint=hint)
