"""`Trial`: one peer on one case in one direction, from making ready to its times."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from spattn.bench.case import Case
from spattn.bench.directions import NoGradientError, answer, call_of, recording
from spattn.bench.judge import Answer, Judge, difference
from spattn.bench.memory import release
from spattn.bench.options import Direction
from spattn.bench.peers.peer import Kind, Peer, Prepared
from spattn.bench.records import Outcome
from spattn.bench.timing import once, timed

Ready = dict[str, Prepared]
"""Peers that are ready, by name; both directions use what one has prepared."""


@dataclass
class Trial:
    """A peer at work; whatever goes wrong becomes its outcome.

    Attributes:
        answer: What it computed, if that was looked at.
        numbers: The fields of `Measured` that are known so far.
    """

    peer: Peer
    case: Case
    direction: Direction
    outcome: Outcome = Outcome.OK
    detail: str = ""
    prepared: Prepared | None = None
    answer: Answer | None = None
    numbers: dict[str, Any] = field(default_factory=dict)

    def make_ready(self, ready: Ready) -> None:
        """Prepares the peer, if the other direction has not."""
        refusal = self.peer.refusal(self.case)
        if refusal is not None:
            self.end(Outcome.REFUSED, refusal)
            return
        with _Guard(self):
            if self.peer.name not in ready:
                ready[self.peer.name] = self.peer.prepare(self.case)
            self.prepared = ready[self.peer.name]
            self.numbers |= {
                "building_ms": self.prepared.first_ms,
                "rebuilding_ms": self.prepared.again_ms,
                "built_bytes": self.prepared.kept_bytes,
            }

    def check(self, judge: Judge) -> None:
        """Calls it for the first time, and looks at the answer."""
        if self.prepared is None or self.outcome is not Outcome.OK:
            return
        found: list[Answer] = []
        prepared = self.prepared
        with _Guard(self), recording(prepared, self.direction):
            compiling = once(lambda: found.append(answer(prepared, self.case, self.direction)), self.case.device)
            self.numbers["compiling_ms"] = compiling
        if self.outcome is Outcome.OK and prepared.exact:
            self.answer = found[0]
            with _Guard(self):
                self._judge(judge)

    def compare(self, partner: Trial | None, tolerance: float) -> None:
        """Holds the answer as a whole against another peer's."""
        if partner is None or partner is self or self.answer is None or partner.answer is None:
            return
        with _Guard(self):
            found = difference(self.answer, partner.answer)
            self.numbers["difference"] = _finite(found)
            if not found <= tolerance:
                self.end(Outcome.WRONG, f"differs from {partner.peer.name} by {found:.1e}")

    def time(self, times: int, operations: float) -> None:
        """Times it, if all went well."""
        if self.prepared is None or self.outcome is not Outcome.OK:
            return
        with _Guard(self), recording(self.prepared, self.direction):
            found = timed(call_of(self.prepared, self.case, self.direction), self.case.device, times)
            counted = operations if self.prepared.exact else None
            self.numbers |= vars(found) | {"tflops": counted and counted / found.ms / 1e9}

    def end(self, outcome: Outcome, detail: str) -> None:
        """It goes no further."""
        self.outcome, self.detail, self.answer = outcome, detail, None

    @property
    def partners(self) -> bool:
        """May others be held against it?"""
        return self.peer.kind is Kind.RIVAL and self.answer is not None and self.outcome is Outcome.OK

    def _judge(self, judge: Judge) -> None:
        assert self.answer is not None
        error = judge.error(self.answer, self.direction)
        if math.isnan(error):
            return
        self.numbers["error"] = _finite(error)
        if error > judge.tolerance:
            self.end(Outcome.WRONG, f"an error of {error:.1e} against float64, where {judge.tolerance:.0e} is allowed")


class _Guard:
    """Turns what a peer raises into its outcome; Ctrl-C passes."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        if isinstance(error, NoGradientError):
            self._trial.end(Outcome.NO_GRADIENT, str(error))
        else:
            self._trial.end(Outcome.FAILED, described(error))
            release(self._trial.case.device)
        return True


def described(error: Exception) -> str:
    """An exception in one line."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first[:200]}"


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
