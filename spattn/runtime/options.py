"""What an operator is told: a pattern and its options as text, which every process reads the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from spattn.errors import PatternError

SCHEMA = 2
_KINDS = {"pattern": str, "backend": str, "tf32": bool, "tune": bool, "tensors": list, "score": str}


@dataclass(frozen=True)
class Plan:
    """A pattern and the options of `spattn.compile`.

    Attributes:
        pattern: The language's text, names bound.
        backend: "auto", or a backend's name.
        tf32: May float32 products use TF32?
        tune: Are tiles measured?
        tensors: Names of the run-time tensors, in the order in which an operator is given them; last those of a score.
        score: The canonical text of a score, "" for none.
        text: All of it, as JSON.
    """

    pattern: str
    backend: str
    tf32: bool
    tune: bool
    tensors: tuple[str, ...]
    score: str = ""
    text: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # at once, since a call that is traced cannot write JSON
        text = json.dumps({"spattn": SCHEMA, **{name: getattr(self, name) for name in _KINDS}})
        object.__setattr__(self, "text", text)

    @classmethod
    def of(cls, text: str) -> Plan:
        """The plan of which this is the text. Nothing in it is trusted yet: the pattern is text, to be parsed.

        Raises:
            PatternError: E035, written by another version, or no plan at all.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if not _is_plan(data):
            raise PatternError("E035", "this is no plan that this version can read", hint="export the program again")
        return cls(data["pattern"], data["backend"], data["tf32"], data["tune"], tuple(data["tensors"]), data["score"])


def _is_plan(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and data.keys() == {"spattn", *_KINDS}
        and data["spattn"] == SCHEMA
        and all(type(data[name]) is kind for name, kind in _KINDS.items())
        and all(isinstance(name, str) for name in data["tensors"])
    )
