"""A decoder's steps on a GPU: one launch a step for each group of heads, none of whose numbers is read from a tensor.

A program has the query heads that share keys, at some positions of a request, and a share of the tiles of keys that
these positions visit. How many shares there are depends on the request alone, so its bits depend on nothing else in the
batch. The last program of a tile to finish adds the shares up, always alike.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from spattn.call.prepared import Prepared
from spattn.call.request import CompiledPattern
from spattn.codegen.parameters import BlockLists, Role
from spattn.codegen.tile import Tile
from spattn.errors import ArgumentError
from spattn.gpu.forward import current
from spattn.gpu.frame import Frame
from spattn.gpu.inputs import RoleInputs
from spattn.gpu.lacks import lacking
from spattn.gpu.limits import beyond
from spattn.gpu.load import load
from spattn.gpu.step import BY_REQUEST, Cache, StepSizes, StepTensors
from spattn.gpu.step_launch import StepLauncher

Heads = np.ndarray[Any, Any] | None
"""Numbers of heads, ascending; None for all."""


def refusal(plans: CompiledPattern, sizes: StepSizes) -> str | None:
    """Why no kernel serves steps of a pattern, as a sentence; None if one does."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if sizes.device.type != "cuda" and not interpreted:
        return f"the decoder is on {sizes.device.type}, and Triton's kernels run on GPUs"
    if interpreted and sizes.dtype == torch.bfloat16:
        return "Triton's interpreter (TRITON_INTERPRET=1) computes bfloat16 wrongly; use float16 or float32"
    why = beyond(sizes.shape)
    if why is not None:
        return why
    if plans.reads_batch:
        return "the pattern tells batch entries apart, and a step has requests"
    for values in plans.groups(1, sizes.num_q_heads):
        lack = lacking(plans, values, True, BY_REQUEST, gradients=False)
        if lack is not None:
            return f"each request has a length of its own, and the pattern reads {lack.what}"
    return None


class GpuDecoder:
    """Steps of one pattern.

    Args:
        plans: The compiled pattern.
        sizes: What steps may have.
        tile: Instead of the one that suits.
    """

    def __init__(self, plans: CompiledPattern, sizes: StepSizes, tile: Tile | None = None) -> None:
        groups = plans.groups(1, sizes.num_q_heads)
        self._groups = [
            _HeadGroup(plans, values, heads if len(groups) > 1 else None, sizes, tile)
            for values, heads in groups.items()
        ]

    def run(self, step: StepTensors, cache: Cache, tensors: Mapping[str, torch.Tensor]) -> None:
        """Fills out and lse of all rows of all requests; nothing else is written."""
        lengths = dict.fromkeys(BY_REQUEST, cache.kv_lens)  # of rows nothing is derived
        prepared = Prepared({**tensors, **lengths})
        with current(step.q.device):
            for group in self._groups:
                group.run(step, cache, prepared)

    def shared_refusal(self) -> str | None:
        """Why a launch cannot read keys once for several requests, as a sentence; None if each can."""
        if all(group.shares for group in self._groups):
            return None
        return "the pattern or its score tells requests apart, by kv_len, by documents or by b"


class _HeadGroup:
    """Heads with one layout."""

    def __init__(
        self,
        plans: CompiledPattern,
        values: tuple[bool, ...],
        heads: Heads,
        sizes: StepSizes,
        tile: Tile | None,
    ) -> None:
        self._sizes = sizes
        self._layout = plans.layout_of(values)
        self._source = plans.decode_source(values)
        self._function = load(plans.publish(self._source.text), self._source.text)["decode"]
        frame = Frame(sizes.positions, sizes.max_batch, sizes.num_q_heads, sizes.device)
        self._inputs = RoleInputs(self._source.roles, frame)
        self._ways_of_heads, self._tile = self._ways(heads), tile
        self._launchers = self._made(shared=False)
        self._launchers[True in self._launchers].prepare()  # others serve tensors that each head has

    @property
    def shares(self) -> bool:
        """May a tile have rows of several requests?"""
        return self._source.shares

    @cached_property
    def _sharing(self) -> dict[bool, StepLauncher]:
        return self._made(shared=True)

    @cached_property
    def _of_shared(self) -> tuple[torch.Tensor, torch.Tensor]:
        """out and lse of shared keys."""
        sizes = self._sizes
        out = torch.empty(
            sizes.max_batch, sizes.num_q_heads, sizes.v_head_dim, dtype=torch.float32, device=sizes.device
        )
        return out, torch.empty(out.shape[:2], dtype=torch.float32, device=sizes.device)

    def _made(self, *, shared: bool) -> dict[bool, StepLauncher]:
        """Launchers for each way to go through the heads."""
        known = self._source, self._function, self._layout, self._sizes
        return {
            packed: StepLauncher(*known, packed, listed, self._tile, shared=shared)
            for packed, listed in self._ways_of_heads
        }

    def _ways(self, heads: Heads) -> list[tuple[bool, Heads]]:
        """Query heads that share keys together, where all are of the group and alike; and one by one."""
        size = self._sizes.group_size
        ways: list[tuple[bool, Heads]] = [(False, heads)]
        if self._source.alike and heads is None:
            ways.append((True, None))
        elif self._source.alike and heads is not None:
            own, counts = np.unique(heads // size, return_counts=True)
            if (counts == size).all():
                ways.append((True, own))
        return ways

    def run(self, step: StepTensors, cache: Cache, prepared: Prepared) -> None:
        """One launch, and one before it over keys that requests share.

        Raises:
            ArgumentError: E060, requests that share keys have tensors of their own.
        """
        inputs = self._inputs.tensors(prepared)
        numbers = self._inputs.numbers(inputs)
        by_head = any(map(self._differs, self._source.roles, numbers))
        packed = True in self._launchers and not by_head
        if step.shared_keys:
            if any(own[0] for own in numbers):
                raise ArgumentError("E060", "requests that share keys have one tensor of the pattern, not one each")
            out, lse = self._of_shared
            rows = replace(
                step,
                # the last row of each request is a row of the first
                q=step.q.permute(2, 1, 0, 3),
                out=out[: step.q.shape[0]].transpose(0, 1)[None],
                lse=lse[: step.q.shape[0]].T[None],
                sinks=None,
            )
            self._sharing[packed].run(rows, cache, inputs, numbers)
            step = replace(step, shared=(out, lse))
        self._launchers[packed].run(step, cache, inputs, numbers)

    def _differs(self, role: Role, numbers: tuple[int, ...]) -> bool:
        """Have query heads that share keys tensors of their own?"""
        together = isinstance(role, BlockLists) and role.grouped and numbers[-1] % self._sizes.group_size == 0
        return bool(numbers[1]) and not together
