"""The forward pass: each group of heads by the kernels of its own layout."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch

from spattn.call.request import CompiledPattern, Request
from spattn.cost.tile_choice import suits_classes
from spattn.gpu.devices import described
from spattn.gpu.launch import Launch, Options, Outputs, launch
from spattn.gpu.modules import Modules
from spattn.gpu.tuning import Tuner


def attend(plans: CompiledPattern, request: Request, outputs: Outputs, options: Options) -> list[Launch]:
    """Fills the outputs of a request; what ran, to be run again.

    Args:
        plans: The compiled pattern.
        request: The call.
        outputs: Where to write.
        options: How launches are chosen; where they name no tuner, one keeps what the plans' records hold.
    """
    if request.positions.num_keys == 0:  # what is read at a key's position would be read from nowhere
        outputs.out.zero_()
        outputs.lse.fill_(-torch.inf)
        return []
    options = measuring(plans, options)
    groups = plans.groups(request.batch_size, request.num_q_heads)
    shape, device, launches = request.shape, described(request.q.device), []
    with current(request.q.device):
        for values, pairs in groups.items():
            only = pairs if len(groups) > 1 else None
            by_residue = options.tile is not None or suits_classes(
                plans, values, shape, len(pairs), device, options.languages
            )
            layout, modules = plans.layout_of(values, by_residue), Modules(plans, values, by_residue)
            launches.append(launch(layout, modules, request, outputs, only, options))
    return launches


def measuring(plans: CompiledPattern, options: Options) -> Options:
    """The options, with a tuner where the plans have records and nothing else says which tiles are taken."""
    if options.tuner is not None or options.tile is not None or plans.records is None:
        return options
    return replace(options, tuner=Tuner(plans.records))


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the one that kernels are launched on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
