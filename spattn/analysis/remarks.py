"""What a pattern's author should hear: it selects nothing, or everything, or gains nothing by tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spattn.analysis.samples import sample_tensors
from spattn.errors import MissingDependencyError, SpattnError
from spattn.expressions.nodes import FALSE, TRUE, Bool
from spattn.layout import counting
from spattn.layout.coverage import Coverage, coverage
from spattn.layout.planner import plan
from spattn.pattern import Pattern
from spattn.relation import proofs

LENGTH = 1024
BLOCK = 64


@dataclass(frozen=True)
class Remark:
    """A warning (`W..`) or a note (`N..`); codes are stable."""

    code: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        kind = "warning" if self.code.startswith("W") else "note"
        return f"{kind} {self.code}: {self.message}" + (f"\n  hint: {self.hint}" if self.hint else "")


NOTHING = Remark("W001", "it selects nothing: every output is 0", "look for an & of parts that exclude each other")
EVERYTHING = Remark("W002", "it equals full attention", "torch's scaled_dot_product_attention does that without a mask")
NO_GAIN = Remark(
    "W003",
    "it gains little by tiles: almost every tile holds some pair, and no index map brings the pairs together",
    "a pattern of blocks, or with one common stride, computes what it allows and no more",
)
UNPROVED = Remark("N001", "whether it is empty or full was not decided: islpy is not installed", "pip install islpy")


def remarks(pattern: Pattern) -> tuple[Remark, ...]:
    """Warnings about a pattern, proved but for W003, which is counted at 1024 tokens."""
    return tuple(_remarks(pattern))


def _remarks(pattern: Pattern) -> Iterator[Remark]:
    condition = pattern.condition
    try:
        if _proved(condition, FALSE):
            yield NOTHING
            return
        if _proved(condition, TRUE):
            yield EVERYTHING
            return
    except MissingDependencyError:
        yield UNPROVED
    if _gains_nothing(condition, pattern.free_names):
        yield NO_GAIN


def _proved(condition: Bool, constant: Bool) -> bool:
    """Is `condition` always this? No, where that can be neither proved nor refuted."""
    try:
        return proofs.equals(condition, constant)
    except MissingDependencyError:
        raise
    except SpattnError:
        return False


def _gains_nothing(condition: Bool, roles: dict[str, str]) -> bool:
    """No full tile, a third of all pairs computed or more, and less than a sixteenth of those allowed."""
    tensors = sample_tensors(condition, roles, LENGTH)
    found = coverage(plan(condition), LENGTH, LENGTH, BLOCK, BLOCK, tensors=tensors)
    work, calls = found.total, max(found.calls, 1)
    if work.full or work.pairs < calls * LENGTH * LENGTH / 3:
        return False
    return _thin(condition, work, tensors)


def _thin(condition: Bool, work: Coverage, tensors: Mapping[str, object]) -> bool:
    return counting.count(condition, LENGTH, LENGTH, tensors) * 16 < work.pairs
