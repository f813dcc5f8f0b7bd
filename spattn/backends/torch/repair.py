"""Products in which 0 * nan counts 0 where the pair is not allowed: for inputs that hold nan or inf, or overflow.

Whatever a pair that is not allowed brings into a plain product is 0 or nan: a plain result that is finite is right, and
only one that is not is repaired, which is to compute it again. There a sum over keys is split: the finite entries as
usual, and for each entry of the result whether an allowed pair brings nan, inf or -inf; these decide what the sum is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def is_finite(*tensors: Tensor) -> bool:
    """Are all entries finite? A sum that overflows says no, which costs time and changes nothing."""
    return all(bool(x.sum().isfinite()) for x in tensors)


def product(allowed: Tensor | None, weights: Tensor, values: Tensor) -> Tensor:
    """`sum over n of weights[m, n] * values[n, d]` over the allowed pairs alone, as IEEE arithmetic has it.

    Args:
        allowed: Pairs, broadcastable to `weights`; None for a plain product, of values that all are finite.
        weights: [.., m, n], 0 where not allowed.
        values: [.., n, d], nan and inf included.
    """
    if allowed is None:
        return weights @ values
    out = weights @ torch.where(values.isfinite(), values, 0)
    zero = allowed & (weights == 0)
    up, down = values == torch.inf, values == -torch.inf
    positive, negative = weights > 0, weights < 0
    rises = _meets(positive, up) | _meets(negative, down)
    falls = _meets(positive, down) | _meets(negative, up)
    nan = _meets(allowed.expand_as(weights), values.isnan()) | _meets(zero, up | down) | (rises & falls)
    out = torch.where(rises, torch.inf, torch.where(falls, -torch.inf, out)) + torch.where(out.isnan(), out, 0)
    return torch.where(nan, torch.nan, out)


def transposed_product(allowed: Tensor | None, weights: Tensor, values: Tensor) -> Tensor:
    """The same of weights [.., n, m] and pairs like them: sums over rows."""
    swapped = None if allowed is None else allowed.transpose(-1, -2)
    return product(swapped, weights.transpose(-1, -2), values)


def _meets(pairs: Tensor, entries: Tensor) -> Tensor:
    """Does some n have both? [.., m, n], [.., n, d] -> [.., m, d]."""
    return pairs.float() @ entries.float() > 0
