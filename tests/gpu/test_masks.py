"""Masks without a tolerance, on a GPU: q = 0 makes weights equal, v = identity shows each key that a row saw."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.gpu.test_accuracy import NARROW, PATTERNS, tensors
from tests.kernels import Inputs, drawn, expected, mask_of, run

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]

KV_LEN = 256


MAPS = ("window", "strided", "columns", "runs", "owners", "random", "within", "table", "grid")


@pytest.mark.parametrize("name", MAPS)
def test_each_row_sees_just_the_keys_of_its_mask(name: str) -> None:
    pattern = PATTERNS[name]
    given = drawn(200, KV_LEN, dtype=torch.float16, dims=(64, 64), device="cuda", tensors=tensors(pattern, KV_LEN, 1))
    v = torch.eye(KV_LEN, dtype=torch.float16, device="cuda").expand(1, 2, KV_LEN, KV_LEN)
    out, lse = run(pattern, replace(given, q=torch.zeros_like(given.q), v=v), tile=None)
    mask = mask_of(pattern, given).cuda()
    assert torch.equal(out > 0, mask)
    assert torch.equal(lse.double().exp().round(), mask.sum(-1).double())


KEYS = (9, 70, 200)


def poisoned(given: Inputs, side: str, poison: float) -> Inputs:
    where = torch.tensor(KEYS, device="cuda")
    k = given.k if side == "v" else given.k.index_fill(2, where, poison)
    return replace(given, k=k, v=given.v if side == "k" else given.v.index_fill(2, where, poison))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["causal", "window", "strided", "owners", "documents"])
def test_keys_that_a_row_may_not_see_never_matter(name: str, poison: float) -> None:
    check_poisoned(PATTERNS[name], (64, 64), poison)


@pytest.mark.parametrize("dims", NARROW, ids=str)
def test_nor_where_values_are_much_narrower_or_wider(dims: tuple[int, int]) -> None:
    check_poisoned(PATTERNS["window"], dims, float("nan"))


def check_poisoned(pattern: str, dims: tuple[int, int], poison: float) -> None:
    given = drawn(250, 256, dtype=torch.bfloat16, dims=dims, device="cuda", tensors=tensors(pattern, 256, 1))
    mask = mask_of(pattern, given).cuda()
    safe = ~mask[..., list(KEYS)].any(-1)
    clean = run(pattern, given, tile=None)
    for side in ("k", "v"):
        bad = poisoned(given, side, poison)
        found = run(pattern, bad, tile=None)
        for mine, other in zip(found, clean, strict=True):
            torch.testing.assert_close(mine[safe], other[safe], atol=1e-2, rtol=1e-2)
        wanted, _ = expected(pattern, bad, mask)
        torch.testing.assert_close(found[0].double(), wanted, atol=3e-2, rtol=3e-2, equal_nan=True)
