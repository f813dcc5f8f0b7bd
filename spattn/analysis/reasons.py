"""Why a tile was chosen before the others, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from spattn.codegen.tile import Tile
from spattn.cost.prediction import Prediction
from spattn.machine.device import Device

CLEAR = 1.1  # a ratio that explains something
NEAR = 1.03


def reason(best: Prediction, others: Sequence[Prediction], device: Device) -> str:
    """The sentence, without its end.

    Args:
        best: What was chosen.
        others: What was not, the best first.
        device: Where it runs.
    """
    if best.tile.splits > 1:
        tiles = best.work.programs // best.tile.splits
        idle = f"{_count(tiles, 'program')} alone would leave most of {device.processors} processors idle"
        return f"{idle}, so {best.tile.splits} share the keys of each"
    rival = next((one for one in others if _shape(one.tile) != _shape(best.tile)), None)
    if rival is None:
        return "no other tile fits"
    return _advantage(best, rival, _shape(rival.tile))


def _advantage(best: Prediction, rival: Prediction, name: str) -> str:
    """What a tile has that another has not; the first that is clear."""
    pairs, loaded = _ratio(rival.work.pairs, best.work.pairs), _ratio(rival.work.loaded, best.work.loaded)
    masked = (
        _ratio(rival.work.partial / rival.work.steps, best.work.partial / best.work.steps) if best.work.steps else 1
    )
    if rival.total < NEAR * best.total:
        return f"{name} is as good, within {abs(rival.total / best.total - 1):.0%}"
    if pairs >= CLEAR:
        return f"it computes {pairs:.1f}x fewer pairs than {name}"
    if loaded >= CLEAR and rival.bound in ("cache", "memory"):
        return f"it loads {loaded:.1f}x fewer bytes than {name}"
    if best.resident > rival.resident:
        return f"{best.resident} of its programs share a processor, and {rival.resident} of {name}"
    if masked >= CLEAR:
        return f"it masks {masked:.1f}x fewer of its key tiles than {name}"
    return f"its key tiles take less time than those of {name}"


def _ratio(more: float, less: float) -> float:
    return more / less if less else 1.0


def _shape(tile: Tile) -> str:
    return f"{tile.block_m} x {tile.block_n}"


def _count(number: int, one: str) -> str:
    return f"{number} {one if number == 1 else one + 's'}"
