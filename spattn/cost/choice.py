"""The tile of a pass: of all candidates the one that is predicted to take the least time."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from spattn.codegen.tile import Tile, next_power
from spattn.cost.candidates import shapes, splits
from spattn.cost.prediction import Prediction, predict
from spattn.cost.rates import rates_of, width_of
from spattn.cost.sizes import Sizes
from spattn.cost.work import Workload
from spattn.layout.ir import Pass
from spattn.machine.device import Device

DOUBT = 1.15  # splits must promise more, since they cost a launch of the host's too


def choose(one: Pass, sizes: Sizes, device: Device, languages: tuple[str, ...]) -> Tile:
    """The tile for a call; calls whose lengths are up to the same powers of two have the same."""
    return ranked(one, sizes.bucketed(), device, languages)[0].tile


@lru_cache(maxsize=4096)
def ranked(one: Pass, sizes: Sizes, device: Device, languages: tuple[str, ...]) -> tuple[Prediction, ...]:
    """Predictions for all candidates, the best first; of equals the one that comes first in the tables.

    Args:
        one: The pass.
        sizes: Of the call.
        device: Where it runs.
        languages: Those that may write its kernel; those that refuse it have no candidates.
    """
    tiles = shapes(one, sizes, device, languages)
    load = Workload(one, sizes, tuple(dict.fromkeys(tile.block_m for tile in tiles)))
    found = []
    for shape in tiles:
        full, partial, longest, _ = load.steps(shape.block_m, shape.block_n)
        for tile in splits(shape, load.tiles(shape.block_m), full + partial, longest, device):
            found.append(_predicted(load, tile, sizes, device))
    return tuple(sorted(found, key=_doubted))


def _doubted(prediction: Prediction) -> float:
    return prediction.total * (DOUBT if prediction.tile.splits > 1 else 1.0)


def predicted(one: Pass, sizes: Sizes, tile: Tile, device: Device) -> Prediction:
    """The prediction for one tile, at just these sizes."""
    return _predicted(Workload(one, sizes, (tile.block_m,)), tile, sizes, device)


def _predicted(load: Workload, tile: Tile, sizes: Sizes, device: Device) -> Prediction:
    rates = rates_of(tile if tile.splits == 1 else replace(tile, splits=1), width_of(sizes.head_dim), sizes.itemsize)
    return predict(load.work(tile), tile, rates, device, next_power(sizes.head_dim) * sizes.itemsize)
