"""Which of two plans of one pattern a call takes: rows by residue by_residue, or masked as they come."""

from __future__ import annotations

from functools import lru_cache

from spattn.cost.choice import ranked
from spattn.cost.sizes import Sizes
from spattn.layout.ir import Layout
from spattn.machine.device import Device


@lru_cache(maxsize=1024)
def prefers_classes(classes: Layout, masked: Layout, sizes: Sizes, device: Device, languages: tuple[str, ...]) -> bool:
    """Does the plan in classes take no longer? Sizes are those of a bucket, as for `ranked`."""
    return total(classes, sizes, device, languages) <= total(masked, sizes, device, languages)


def total(layout: Layout, sizes: Sizes, device: Device, languages: tuple[str, ...]) -> float:
    """Microseconds of all passes, each with the tile that suits it."""
    passes = (one for one in layout.passes if not one.skips(*sizes.rows))
    return sum(ranked(one, sizes, device, languages)[0].total for one in passes)
