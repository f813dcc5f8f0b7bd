"""`Peer`: something that computes a workload, and what it hands over when it has made itself ready."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum

import torch

from spattn.bench.case import Case

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""q, k, v -> out, each `[batch, heads, length, head_dim]`."""


class Kind(StrEnum):
    """What a peer is to spattn."""

    OURS = "ours"
    RIVAL = "rival"
    """Serves any pattern; what spattn is compared with."""
    OTHER = "other"
    """Serves some patterns only, or computes all pairs."""


@dataclass(frozen=True)
class Prepared:
    """A peer that is ready for a case.

    Attributes:
        attend: Computes it.
        first_ms: What making ready took, compilation included.
        again_ms: What it takes once more, with nothing to compile; None if the first time compiled nothing either.
        kept_bytes: Of the mask, table or plan, on the device.
        peak_bytes: The most while it was made.
        exact: Are the pairs those of the pattern? Else the answer is no answer, and not looked at.
        within: Entered around all calls.
    """

    attend: Attend
    first_ms: float = 0.0
    again_ms: float | None = None
    kept_bytes: int | None = None
    peak_bytes: int | None = None
    exact: bool = True
    within: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Peer(ABC):
    """One column of the table.

    Attributes:
        name: As the table shows it.
        kind: What it is to spattn.
    """

    name: str
    kind: Kind = Kind.RIVAL

    def missing(self, device: torch.device) -> str | None:
        """Why it cannot run here at all, as a sentence; None if it can."""
        return None

    def refusal(self, case: Case) -> str | None:
        """Why it cannot serve the case, as a sentence; None if it can."""
        return None

    @abstractmethod
    def prepare(self, case: Case) -> Prepared:
        """Whatever precedes the calls: plans, masks, tables."""
