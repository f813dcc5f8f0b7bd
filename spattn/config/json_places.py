"""Where values stand in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

_SPACE = re.compile(r"[ \t\r\n]*")


def find(text: str, path: Sequence[str]) -> int:
    """The position of the value at a path, or of the nearest above it that is there."""
    here = _beyond(text, 0)
    for name in path:
        below = _member(text, here, name)
        if below is None:
            break
        here = below
    return here


def _member(text: str, here: int, name: str) -> int | None:
    """Where the value of a member of the object at `here` begins; of members of one name, the last counts."""
    decoder, found = json.JSONDecoder(), None
    if text[here] != "{":
        return None
    here = _beyond(text, here + 1)
    while text[here] == '"':
        key, here = decoder.raw_decode(text, here)
        here = _beyond(text, _beyond(text, here) + 1)
        if key == name:
            found = here
        here = _beyond(text, decoder.raw_decode(text, here)[1])
        if text[here] != ",":
            break
        here = _beyond(text, here + 1)
    return found


def _beyond(text: str, here: int) -> int:
    space = _SPACE.match(text, here)
    assert space is not None
    return space.end()
