"""Trees of drafted tokens: forward, backward, and decode steps by generated kernels beside the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spattn
from spattn import oracle
from spattn.gpu.step_launch import StepLauncher
from tests.kernels import PEELED, check, check_gradients, drawn
from tests.serving.caches import Requests, Shape, cache_of, ends_of, expected
from tests.serving.test_decoder import check as check_step
from tests.serving.test_decoder import decoder_of, packed, queries

pytestmark = pytest.mark.interpret

TREE = {"a": torch.tensor([0b1, 0b11, 0b101, 0b1011, 0b10101]), "d": torch.tensor([0, 1, 1, 2, 2])}
TREES = {
    "a": torch.stack([TREE["a"], torch.tensor([1, 3, 7, 15, 31])]),
    "d": torch.stack([TREE["d"], torch.arange(5)]).to(torch.int32),
}
PATTERNS = ("causal & (last(9) | sink(3))", "chunk(8, back=1) | columns([1, 5, 17])", "strided(4) & causal")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_calls_and_gradients(pattern: str) -> None:
    draft = f"draft(a, d, {pattern})"
    check(draft, drawn(5, 41, batch=2, heads=(2, 1), tensors=TREES, dtype=torch.float16), PEELED)
    check(draft, drawn(19, 31, heads=(1, 1), tensors=TREE, q_offset=3))
    check_gradients(draft, drawn(18, 33, heads=(1, 1), tensors=TREE))


def test_all_bits_are_read() -> None:
    chain = {"a": 2 ** torch.arange(1, 64) - 1, "d": torch.arange(63)}
    chain["a"][62] = 2**63 - 1
    given = drawn(63, 70, heads=(1, 1), tensors=chain)
    check("draft(a, d, causal)", given)
    mask = oracle.mask(spattn.parse("causal").syntax, 63, 70)
    drafted = oracle.mask(spattn.parse("draft(a, d, causal)").syntax, 63, 70, tensors=chain)
    np.testing.assert_array_equal(mask, drafted)


LISTS = torch.tensor([[[[2, 0, 4, -1]], [[1, 1, -1, -1]]], [[[0, -1, -1, -1]], [[3, 0, 1, 2]]]], dtype=torch.int32)


@pytest.mark.parametrize(
    ("pattern", "tensors", "rows", "dtype"),
    [
        ("draft(a, d, causal & (last(9) | sink(3)))", TREES, 5, torch.float16),
        ("draft(a, d, causal)", TREES, 5, torch.float32),
        ("listed_blocks(x, 8) & causal", {"x": LISTS}, 1, torch.float16),
        ("(listed_blocks(x, 8) | last(5)) & causal", {"x": LISTS}, 2, torch.float32),
    ],
)
def test_decode_steps(pattern: str, tensors: dict[str, torch.Tensor], rows: int, dtype: torch.dtype) -> None:
    shape = Shape(batch=2, dtype=dtype)
    cache, requests = cache_of("rows", shape), Requests(shape)
    requests.append([cache], [37 - rows, 20])
    requests.append([cache], [rows, rows])
    attn = spattn.compile(pattern, backend="triton")
    step, q = decoder_of(attn, shape, 2, max_new=rows), queries(shape, 2, [rows, rows])
    ran = []
    with pytest.MonkeyPatch.context() as patch:
        launched = StepLauncher.run
        patch.setattr(StepLauncher, "run", lambda self, *given: (ran.append(self), launched(self, *given)))
        found = step(packed(q), cache, ends_of([rows, rows]), return_lse=True, **tensors)
    assert [one._group for one in ran] == [2], "a program has all query heads that share keys"
    check_step(found, expected(attn.pattern.syntax, requests, q, tensors), requests.lens, dtype)
