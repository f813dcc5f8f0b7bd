"""The two directions of a peer: what it answers, and the call that is timed.

Both functions run inside of `recording`, which stands around whole measurements and so costs a call nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from spattn.bench.case import Case
from spattn.bench.judge import Answer
from spattn.bench.options import Direction
from spattn.bench.peers.peer import Prepared
from spattn.errors import UnsupportedError


class NoGradientError(Exception):
    """An answer cannot be differentiated."""


def directions(chosen: Direction) -> tuple[Direction, ...]:
    """One or both."""
    return (Direction.FORWARD, Direction.BACKWARD) if chosen is Direction.BOTH else (chosen,)


@contextmanager
def recording(prepared: Prepared, direction: Direction) -> Iterator[None]:
    """Gradients are recorded for the backward direction alone; and what the peer wants around its calls."""
    with prepared.within(), torch.set_grad_enabled(direction is Direction.BACKWARD):
        yield


def answer(prepared: Prepared, case: Case, direction: Direction) -> Answer:
    """(out,), or (dq, dk, dv) for the case's gradient of out.

    Raises:
        NoGradientError: There is none.
    """
    if direction is Direction.FORWARD:
        return (prepared.attend(*case.inputs),)
    leaves = case.leaves()
    return torch.autograd.grad(_out(prepared, leaves), leaves, case.dout)


def call_of(prepared: Prepared, case: Case, direction: Direction) -> Callable[[], object]:
    """What is timed: a forward call that records nothing, or the backward pass alone."""
    if direction is Direction.FORWARD:
        inputs = case.inputs
        return lambda: prepared.attend(*inputs)
    leaves = case.leaves()
    out, dout = _out(prepared, leaves), case.dout

    def backward() -> None:
        for leaf in leaves:
            leaf.grad = None
        torch.autograd.backward(out, dout, retain_graph=True)

    return backward


def _out(prepared: Prepared, leaves: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    try:
        out = prepared.attend(*leaves)
    except UnsupportedError as error:
        raise NoGradientError(error.message) from error
    if not out.requires_grad:
        raise NoGradientError("its output has no gradient")
    return out
