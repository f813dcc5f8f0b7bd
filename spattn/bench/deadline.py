"""How much time a run has, and what it left out for want of it."""

from __future__ import annotations

import time

SPENT = "the time was spent"


class Deadline:
    """After so many seconds nothing new is begun; what runs is not stopped."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self.left_out: list[str] = []

    def allows(self, what: str) -> bool:
        """Is there time left to begin `what`? Notes it if there is not."""
        if self._end is None or time.monotonic() < self._end:
            return True
        self.left_out.append(what)
        return False
