"""`DecodePeer`: something that computes decode steps, and what it hands over when it has made itself ready."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from spattn.bench.decode.case import DecodeCase
from spattn.bench.peers.peer import Kind


def nothing() -> None:
    """Does nothing."""


@dataclass(frozen=True)
class Ready:
    """A peer that is ready for a case.

    Attributes:
        step: Layer -> out, `[batch, q_heads, new, head_dim]`.
        renew: What precedes the next step of each layer where lengths have changed, once for all layers but where the
            peer says otherwise.
        exact: Are the keys those of the pattern? Else the answer is none, and not looked at.
        within: Entered around all of it.
    """

    step: Callable[[int], torch.Tensor]
    renew: Callable[[], None] = nothing
    exact: bool = True
    within: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class DecodePeer(ABC):
    """One column of the table.

    Attributes:
        name: As the table shows it.
        kind: A rival reads the cache as it lies.
    """

    name: str
    kind: Kind = Kind.RIVAL

    def missing(self, device: torch.device) -> str | None:
        """Why it cannot run here at all, as a sentence; None if it can."""
        return None

    def refusal(self, case: DecodeCase) -> str | None:
        """Why it cannot serve the case, as a sentence; None if it can."""
        return None

    @abstractmethod
    def prepare(self, case: DecodeCase) -> Ready:
        """Whatever precedes the steps: plans, masks, tables."""
