"""The forward pass: each group of heads by the kernels of its own layout."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from spattn.call.request import CompiledPattern, Request
from spattn.cost.tile import Tile
from spattn.cost.tile_choice import suits_classes
from spattn.gpu.devices import described
from spattn.gpu.launch import Launch, Outputs, launch
from spattn.gpu.load import load
from spattn.gpu.tuning import Tuner


def attend(
    plans: CompiledPattern, request: Request, outputs: Outputs, tile: Tile | None = None, tuner: Tuner | None = None
) -> list[Launch]:
    """Fills the outputs of a request; what ran, to be run again.

    Args:
        plans: The compiled pattern.
        request: The call.
        outputs: Where to write.
        tile: For every pass, instead of the one that suits the device.
        tuner: Measures which suits it; where none is given, one that keeps what the plans' records hold.
    """
    if request.kv_len == 0:  # what is read at a key's position would be read from nowhere
        outputs.out.zero_()
        outputs.lse.fill_(-torch.inf)
        return []
    if tuner is None and tile is None and plans.records is not None:
        tuner = Tuner(plans.records)
    groups = plans.groups(request.batch_size, request.num_q_heads)
    shape, device, launches = request.shape, described(request.q.device), []
    with current(request.q.device):
        for values, pairs in groups.items():
            only = pairs if len(groups) > 1 else None
            classes = tile is not None or suits_classes(plans, values, shape, len(pairs), device)
            source, layout = plans.module_of(values, classes), plans.layout_of(values, classes)
            kernels = load(plans.publish(source.text), source.text)
            launches.append(launch(layout, source, kernels, request, outputs, only, tile, tuner))
    return launches


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the one that kernels are launched on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
