"""Cases that the two ends of the range of Triton share out among them: the text that they compile is the same."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from itertools import product
from typing import Any

OLDEST = version("triton").startswith("3.6.")


def shared_out(*axes: Collection[Any]) -> list[Any]:
    """Every other case of a product, as on a board of chess: the oldest Triton has the one colour, others the other.

    Neighbours differ in one value, so each Triton meets every value of two or more axes, beside half of the others.
    """
    counted = product(*map(enumerate, axes))
    cases = [tuple(zip(*case, strict=True)) for case in counted]
    mine = [values for places, values in cases if sum(places) % 2 == OLDEST]
    return [values[0] for values in mine] if len(axes) == 1 else mine
