"""Files written whole or not at all, so that a run which is stopped leaves the results it had."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def replaced(path: Path, content: bytes) -> None:
    """The file with this content."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
