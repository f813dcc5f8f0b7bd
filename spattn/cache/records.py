"""JSON records that carry their own digest: a line with it, then the data on one line."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

_KEY = re.compile(r"[0-9a-f]{64}")


def digest(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal: what entries are named by."""
    return hashlib.sha256(text.encode()).hexdigest()


def record_name(key: str) -> str:
    """The file of the record under `key`; nothing but a digest can name a file."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a digest: {key!r}")
    return key + ".json"


def seal(key: str, data: dict[str, Any]) -> bytes:
    """A record as it is filed. The digest covers the key, so that a file under another name is no record.

    Raises:
        ValueError: `data` holds a number that JSON has not.
        TypeError: `data` holds something else that JSON has not.
    """
    body = json.dumps(data, sort_keys=True, allow_nan=False)
    return f"{digest(key + body)}\n{body}\n".encode()


def unseal(key: str, payload: bytes) -> dict[str, Any]:
    """The data of a record.

    Raises:
        ValueError: It is not the record that was filed under `key`.
    """
    stated, _, body = payload.decode().partition("\n")
    if stated != digest(key + body.removesuffix("\n")):
        raise ValueError("the record is not what its digest says")
    data: dict[str, Any] = json.loads(body)
    return data
