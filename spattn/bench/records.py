"""What a run found, as data: each row of a table is a record, and a `Result` is what the JSON file holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar

from spattn.errors import ArgumentError

SCHEMA = "spattn/bench/1"


class Outcome(StrEnum):
    """How a peer did."""

    OK = "ok"
    WRONG = "wrong"
    FAILED = "failed"
    REFUSED = "refused"
    NO_GRADIENT = "no gradient"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class Entry:
    """What every record says. Numbers that were not measured are None.

    Attributes:
        kind: Of the peer: ours, rival, other.
        detail: Why it went as it went, where that is not plain.
    """

    workload: str
    pattern: str
    length: int
    peer: str
    kind: str
    outcome: str = Outcome.OK
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured(Entry):
    """A peer on a workload in one direction.

    Attributes:
        pairs: Allowed pairs of all heads and batch entries.
        ms: Median time of a call, `fastest_ms` the least of `samples`.
        host_us: Python's part, as `timing.Times` has it; so is `queued_ms`.
        tflops: Effective: allowed pairs only count.
        error: Against float64, on sampled rows.
        difference: Against the first rival's answer as a whole.
        building_ms: Plan or mask, the first time; `rebuilding_ms` once more; `built_bytes` is kept.
        compiling_ms: The first call.
    """

    head_dim: int
    heads: tuple[int, int]
    batch: int
    pairs: int
    direction: str
    ms: float | None = None
    fastest_ms: float | None = None
    samples: int = 0
    host_us: float | None = None
    queued_ms: float | None = None
    tflops: float | None = None
    error: float | None = None
    difference: float | None = None
    building_ms: float | None = None
    rebuilding_ms: float | None = None
    built_bytes: int | None = None
    compiling_ms: float | None = None


@dataclass(frozen=True)
class Built(Entry):
    """What a length costs before the first answer.

    Attributes:
        once_ms: For the first length: planning, or the first mask with its compilation.
        length_ms: For this length, with nothing to compile.
        peak_bytes: The most while it was built, beside inputs and answer.
        kept_bytes: What stays for later calls.
    """

    once_ms: float | None = None
    length_ms: float | None = None
    peak_bytes: int | None = None
    kept_bytes: int | None = None


@dataclass(frozen=True)
class Started(Entry):
    """A new process, from after its imports to its first answer.

    Attributes:
        cold_ms: With empty caches.
        warm_ms: With those that the first process left.
        call_ms: Its second call.
        planning_ms: The part of `cold_ms` that precedes the call: plan or mask.
    """

    cold_ms: float | None = None
    warm_ms: float | None = None
    call_ms: float | None = None
    planning_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Decoded(Entry):
    """A peer on a decode workload.

    Attributes:
        stored: Dense, in pages or in a ring; `numbers` are those of q's dtype or float8.
        ragged: Are the lengths of requests drawn, up to `length`?
        new: Rows of a request.
        keys: Needed ones of all requests; `needed_bytes` are those of their keys and values.
        floor_us: What the device's memory takes to give these bytes.
        layers: Caches that steps go round, which read `rotated_bytes` different bytes.
        exact: Are the keys those of the pattern? Else all keys are, and the answer is none.
        us: Median time of a step, as `clock.StepTimes` has it; so are `fastest_us` and `samples`.
        launches: Of a step, by the graph of steps.
        host_us: Of an eager step, `renewed_us` of one after all lengths have changed.
        gigabytes: Needed ones a second.
        error: Against float64.
        building_ms: Plan, mask or tables, with what is compiled for them; `compiling_ms` is the first step.
    """

    batch: int
    heads: tuple[int, int]
    head_dim: int
    stored: str
    numbers: str
    ragged: bool
    new: int
    keys: int
    needed_bytes: int
    floor_us: float
    layers: int
    rotated_bytes: int
    exact: bool = True
    us: float | None = None
    fastest_us: float | None = None
    samples: int = 0
    launches: float | None = None
    host_us: float | None = None
    renewed_us: float | None = None
    gigabytes: float | None = None
    error: float | None = None
    building_ms: float | None = None
    compiling_ms: float | None = None


Record = Measured | Built | Started | Decoded
Row = TypeVar("Row", Measured, Built, Started, Decoded)


@dataclass
class Result:
    """A run.

    Attributes:
        machine: Versions, device, dtype, time.
        absent: Peers that are not here, and why.
        left_out: What there was no time for.
    """

    machine: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    built: list[Built] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    decoded: list[Decoded] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Files a record."""
        match record:
            case Measured():
                self.measured.append(record)
            case Built():
                self.built.append(record)
            case Started():
                self.started.append(record)
            case Decoded():
                self.decoded.append(record)

    @property
    def right(self) -> bool:
        """Was no answer wrong, and did spattn not fail?"""
        records: list[Record] = [*self.measured, *self.built, *self.started, *self.decoded]
        failed = (one for one in records if one.kind == "ours" and one.outcome == Outcome.FAILED)
        return not any(failed) and all(one.outcome != Outcome.WRONG for one in records)

    def to_json(self) -> str:
        """One object, its form named and numbered."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> Result:
        """The run that `to_json` wrote.

        Raises:
            ArgumentError: E035, it is none.
        """
        try:
            data = json.loads(text)
            if data["schema"] != SCHEMA:
                raise KeyError(data["schema"])
            return Result(
                machine=dict(data["machine"]),
                absent=dict(data["absent"]),
                measured=[_record(Measured, row) for row in data["measured"]],
                built=[_record(Built, row) for row in data["built"]],
                started=[_record(Started, row) for row in data["started"]],
                decoded=[_record(Decoded, row) for row in data.get("decoded", ())],
                left_out=list(data["left_out"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            message = "this is no result that this version can read"
            raise ArgumentError("E035", message, hint="spattnc bench --json FILE writes one") from error


def _record(kind: type[Row], row: dict[str, Any]) -> Row:
    names = {one.name for one in fields(kind)}
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items() if name in names
    }
    return kind(**known)
