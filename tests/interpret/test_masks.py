"""Masks without a tolerance: one leaked or dropped key shows, whatever the dtype.

With q = 0 all weights of a row are equal, so lse is the log of a count, and v = identity shows each key that was seen.
"""

from __future__ import annotations

import pytest
import torch

from spattn.frontend.parser import parse
from tests.kernels import Inputs, drawn, fenced, mask_of, run
from tests.layout.patterns import PICKED, tensors

pytestmark = pytest.mark.interpret

Q_LEN, KV_LEN = 41, 54


def uniform(name: str, v: torch.Tensor, dtype: torch.dtype = torch.float32) -> Inputs:
    """q = 0 and keys that would tell if it were not; sorted and unsorted documents."""
    given = drawn(Q_LEN, KV_LEN, heads=(2, 1), dtype=dtype)
    q = fenced(torch.zeros_like(given.q), float("nan"))
    values = fenced(v.to(dtype).expand(1, 1, KV_LEN, v.shape[-1]), float("nan"))
    node = parse(PICKED[name])
    return Inputs(q, given.k, values, tensors(node, KV_LEN, sorted_ids=dtype == torch.float32))


@pytest.mark.parametrize("name", PICKED)
def test_each_row_sees_just_the_keys_of_its_mask(name: str) -> None:
    dtype = (torch.float32, torch.float16)[len(name) % 2]
    given = uniform(name, torch.eye(KV_LEN), dtype)
    out, lse = run(PICKED[name], given)
    mask = mask_of(PICKED[name], given)
    assert torch.equal(out > 0, mask)
    assert torch.equal(lse.double().exp().round(), mask.sum(-1).double())
    torch.testing.assert_close(lse.double(), mask.sum(-1).double().log(), atol=2e-7, rtol=2e-7)


@pytest.mark.parametrize(
    "name", ["window", "strided", "fixed_wide", "global_many", "blocks", "within", "random", "heads"]
)
def test_ones_give_one_and_bits_are_counted(name: str) -> None:
    keys = torch.arange(KV_LEN)
    bits = [(keys >> j) & 1 for j in range(KV_LEN.bit_length())]
    given = uniform(name, torch.stack([torch.ones(KV_LEN), *bits], -1))
    out, _ = run(PICKED[name], given)
    mask = mask_of(PICKED[name], given).double()
    count = mask.sum(-1, keepdim=True)
    assert torch.equal(out[..., :1], (count > 0).float())
    assert torch.equal((out.double() * count).round(), mask @ given.v.double())


def test_rows_without_keys_give_zero_and_no_lse() -> None:
    for pattern in ("columns([40:]) & causal", "none", "chunk(16, back=1) & causal - chunk(16)", "blockwise(16, none)"):
        given = drawn(40, 48)
        out, lse = run(pattern, given)
        empty = ~mask_of(pattern, given).any(-1)
        assert empty.any()
        assert (out[empty] == 0).all()
        assert (lse[empty] == -torch.inf).all()
        assert lse[~empty].isfinite().all()
