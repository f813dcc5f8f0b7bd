"""Products in which 0 * nan counts 0 where the pair is not allowed: for inputs that hold nan or inf, or overflow.

Whatever a pair that is not allowed brings into a plain product is 0 or nan: a plain result that is finite is right, and
only one that is not must be computed again with care. There a sum over keys is split: the finite entries as usual, and
for each entry of the result whether an allowed pair brings nan, inf or -inf; these decide what the sum is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def is_finite(*tensors: Tensor) -> bool:
    """Are all entries finite? A sum that overflows says no, which costs time and changes nothing."""
    return all(bool(x.sum().isfinite()) for x in tensors)


def careful_matmul(weights: Tensor, allowed: Tensor, values: Tensor) -> Tensor:
    """`sum over n of weights[m, n] * values[n, d]` over the allowed pairs alone, as IEEE arithmetic has it.

    Args:
        weights: [.., m, n], 0 where not allowed.
        allowed: Pairs, broadcastable to `weights`.
        values: [.., n, d], nan and inf included.
    """
    out = weights @ torch.where(values.isfinite(), values, 0)
    zero = allowed & (weights == 0)
    up, down = values == torch.inf, values == -torch.inf
    positive, negative = weights > 0, weights < 0
    rises = _meets(positive, up) | _meets(negative, down)
    falls = _meets(positive, down) | _meets(negative, up)
    nan = _meets(allowed.expand_as(weights), values.isnan()) | _meets(zero, up | down) | (rises & falls)
    out = torch.where(rises, torch.inf, torch.where(falls, -torch.inf, out)) + torch.where(out.isnan(), out, 0)
    return torch.where(nan, torch.nan, out)


def _meets(pairs: Tensor, entries: Tensor) -> Tensor:
    """Does some n have both? [.., m, n], [.., n, d] -> [.., m, d]."""
    return pairs.float() @ entries.float() > 0
