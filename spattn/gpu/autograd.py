"""Attention by generated kernels as a differentiable function of q, k, v."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from spattn.call import request as call
from spattn.call.differentiation import Reading, gradients
from spattn.call.positions import USUAL, Numbers, Positions, placed
from spattn.call.prepared import Prepared, is_captured
from spattn.call.request import CompiledPattern, Request, Upstream
from spattn.errors import UnsupportedError
from spattn.gpu.backward import Gradients, dense_rows, differentiate
from spattn.gpu.forward import attend
from spattn.gpu.kernel_launch import kind_of
from spattn.gpu.launch import Options, Outputs
from spattn.gpu.replay import ReplayedCall, replayed
from spattn.gpu.replay_backward import ReplayedBackward, replayed_backward

Three = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
MAX_REPLAYED = 64

Reference = Callable[[CompiledPattern, Request], call.Differentiable]
"""Another backend's gradients of such calls: their derivatives are asked of it."""


class Recorded:
    """Attention recorded by autograd, for calls of a request's dtypes and device and of strides like its own.

    Args:
        plans: The compiled pattern.
        request: A call of the kind; of its tensors none is kept.
        languages: Which may be taken.
        reference: Who knows the derivatives of gradients.
    """

    def __init__(
        self, plans: CompiledPattern, request: Request, languages: tuple[str, ...], reference: Reference
    ) -> None:
        self.plans, self.languages, self.reference = plans, languages, reference
        self.options: dict[str, Any] = {"scale": request.scale, "tf32": request.tf32, "score": request.score}
        self.floats = request.floats
        self.by_request = request.positions.by_request
        self.forward: ReplayedCall | None = None
        self.backward: dict[Any, ReplayedBackward] = {}
        self.last_backward: tuple[Any, ReplayedBackward] | None = None

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prepared: Prepared, said: Numbers, numbers: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, lse); arguments as of `ReplayedCall`."""
        at = placed(said, self.by_request, q.shape[2], k.shape[2])
        floats = [prepared[name] for name in self.floats]
        out, lse = _Attention.apply(q, k, v, Differentiable(self, at, said, numbers), prepared, *floats)
        return out, lse

    def keep(self, key: Any, known: ReplayedBackward | None) -> None:
        """Remembers a backward pass that has run."""
        if len(self.backward) >= MAX_REPLAYED:
            self.backward.clear()
        if known is not None:
            self.backward[key] = known


class Differentiable:
    """The gradients of calls that differ in nothing but the values of their tensors.

    Args:
        recorded: What is known of calls like it, of other lengths too.
        positions: Where rows and keys stand.
        said: The same as the call says it.
        numbers: Equal for calls of the same shapes, strides and positions in numbers.
    """

    def __init__(self, recorded: Recorded, positions: Positions, said: Numbers = USUAL, numbers: Any = None) -> None:
        self._recorded, self._positions, self._said, self._numbers = recorded, positions, said, numbers

    def at(self, positions: Positions) -> Differentiable:
        """The same for calls of other lengths, whose rows and keys stand there."""
        return Differentiable(self._recorded, positions)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prepared: Prepared
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, lse)."""
        known = self._recorded
        again = known.forward
        answer = None if again is None else again(q, k, v, prepared, self._said, self._numbers)
        if answer is not None:
            return answer
        request = self._request(q, k, v, prepared)
        outputs = Outputs.of(request)
        launches = attend(known.plans, request, outputs, Options(known.languages))
        known.forward = replayed(request, launches)
        return outputs.out, outputs.lse

    def _request(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prepared: Prepared) -> Request:
        return Request(q, k, v, tensors=prepared, positions=self._positions, **self._recorded.options)

    def backward(
        self,
        saved: tuple[torch.Tensor, ...],
        prepared: Prepared,
        d_out: torch.Tensor | None,
        d_lse: torch.Tensor | None,
        wanted: tuple[bool, ...],
    ) -> tuple[torch.Tensor | None, ...]:
        """The gradients of q, k, v and of what a score reads; the latter by another backend.

        Args:
            saved: q, k, v, out, lse.
            prepared: The tensors of pattern and score, as the forward pass saw them.
            d_out: Gradient of out, any strides; None for zero.
            d_lse: Gradient of lse; None for zero.
            wanted: Which are asked for; the others are None.
        """
        of_floats = self._of_floats(saved, prepared, d_out, d_lse, wanted[3:])
        if not any(wanted[:3]):
            return None, None, None, *of_floats
        q, k, v, out, lse = saved
        d_out, outputs, known = dense_rows(d_out, out), Outputs(out, lse), self._recorded
        given = q, k, v, out, d_out, *(() if d_lse is None else (d_lse,))
        exact = wanted, self._positions, [x.stride() for x in given], [(x.shape, x.stride()) for x in prepared.values()]
        last = known.last_backward
        again: ReplayedBackward | None
        if last is not None and last[0] == exact:
            exact, again = last
        else:
            again = known.backward.get(_kind(wanted, given))
        into = None if again is None else again(q, k, v, outputs, d_out, d_lse, prepared, self._positions, exact)
        if again is not None and into is not None:
            known.last_backward = exact, again
        else:
            request = self._request(q, k, v, prepared)
            into = _unwritten(q, k, v, wanted)
            if request.positions.by_request:  # no kernel writes what is padding
                into.clear()
            ran = differentiate(known.plans, request, outputs, d_out, d_lse, into, Options(known.languages))
            known.keep(_kind(wanted, given), replayed_backward(request, (d_out, d_lse, out, lse), ran, wanted))
        return *_asked(into, wanted), *of_floats

    def _of_floats(
        self,
        saved: tuple[torch.Tensor, ...],
        prepared: Prepared,
        d_out: torch.Tensor | None,
        d_lse: torch.Tensor | None,
        wanted: tuple[bool, ...],
    ) -> tuple[torch.Tensor | None, ...]:
        """The gradients of what a score reads.

        Raises:
            UnsupportedError: E061, a graph is captured, which cannot wait for the device as they do.
        """
        if not any(wanted):
            return (None,) * len(wanted)
        q, k, v, *_ = saved
        if is_captured(q):
            raise UnsupportedError(
                "E061",
                "no graph captures the gradients of a score's tensors, which wait for the device",
                hint="give the call these tensors detached, or leave its backward pass out of the graph",
            )
        request = self._request(q, k, v, prepared)
        reference = self._recorded.reference(self._recorded.plans, request)
        return reference.backward(saved, prepared, d_out, d_lse, (False, False, False, *wanted))[3:]

    def second(
        self,
        saved: tuple[torch.Tensor, ...],
        prepared: Prepared,
        d_out: torch.Tensor | None,
        d_lse: torch.Tensor | None,
        upstream: Upstream,
    ) -> tuple[torch.Tensor, ...]:
        """The derivatives of `backward`, by another backend, which runs the same plan."""
        q, k, v, *_ = saved
        request = self._request(q, k, v, prepared)
        return self._recorded.reference(self._recorded.plans, request).second(saved, prepared, d_out, d_lse, upstream)

    @staticmethod
    def unwritten(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, wanted: tuple[bool, ...]) -> Three:
        """The gradients of q, k and v, before anything is computed."""
        return _asked(_unwritten(q, k, v, wanted), wanted)


def _kind(wanted: tuple[bool, ...], given: Sequence[torch.Tensor]) -> Any:
    """What backward passes share that the same kernels serve."""
    return wanted, *((kind_of(batch), kind_of(head), row) for batch, head, row in (x.stride()[:3] for x in given))


def _unwritten(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, wanted: tuple[bool, ...]) -> Gradients:
    """Where kernels write: dq always, which finds what the others need; those of k and v together or not at all."""
    keys = wanted[1] or wanted[2]
    return Gradients.of(q, k if keys else None, v if keys else None)


def _asked(into: Gradients, wanted: tuple[bool, ...]) -> Three:
    return into.q if wanted[0] else None, into.k if wanted[1] else None, into.v if wanted[2] else None


class _Attention(torch.autograd.Function):
    """(out, lse) of q, k, v, and of what a score reads, along the layouts of a pattern."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        made: Differentiable,
        prepared: Prepared,
        *floats: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        del floats  # are among what is prepared
        # whatever is written to the pattern's tensors, the backward pass sees what the forward pass saw
        prepared = prepared.copied()
        out, lse = made.forward(q, k, v, prepared)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.made, ctx.prepared = made, prepared
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, d_out: torch.Tensor | None, d_lse: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        wanted = (*ctx.needs_input_grad[:3], *ctx.needs_input_grad[5:])
        if d_out is None and d_lse is None:
            return None, None, None, None, None, *[None] * len(wanted[3:])
        made = Reading(ctx.made, ctx.prepared)
        found = gradients(made, ctx.saved_tensors, d_out, d_lse, wanted)
        return *found[:3], None, None, *found[3:]
