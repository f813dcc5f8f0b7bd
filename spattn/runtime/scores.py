"""The float tensors of a score at a call."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from spattn.errors import ArgumentError
from spattn.scores.nodes import Score
from spattn.scores.words import reads


def check_floats(score: Score, tensors: Mapping[str, Tensor]) -> None:
    """Refuses tensors that do not fit the score that reads them.

    Args:
        score: The score.
        tensors: Those of the call, of float dtypes.

    Raises:
        ArgumentError: E060, one has not as many dimensions as the score has indices, or is empty.
    """
    for name, rank in reads(score).items():
        one = tensors[name]
        if one.numel() == 0 or (one.dim() != rank if rank else one.numel() != 1):
            wanted = f"{rank} dimensions, none empty" if rank else "one element"
            raise ArgumentError("E060", f"{name} has shape {list(one.shape)}; the score reads it with {wanted}")
