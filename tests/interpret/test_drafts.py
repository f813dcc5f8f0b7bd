"""Trees of drafted tokens: forward, backward, and decode steps by generated kernels beside the oracle."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import spattn
from spattn import oracle
from spattn.gpu.decoding import GpuDecoder, Step, StepSizes
from tests.kernels import PEELED, TOLERANCE, check, check_gradients, drawn

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
    lens, heads, width = [41, 20], (4, 2), 16
    generator = torch.Generator().manual_seed(0)
    shapes = (2, heads[0], rows, width), (2, 44, heads[1], width), (2, 44, heads[1], width)
    q, k, v = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    step = Step(q, torch.full_like(q, 777.0), torch.full((2, heads[0], rows), 777.0), None, None, width**-0.5)
    nothing = dict.fromkeys(("table", "table_starts", "kept", "k_scale", "v_scale"))
    places = dict.fromkeys(("page_size", "window", "window_base"), 0)
    cache: Any = SimpleNamespace(keys=k, values=v, kv_lens=torch.tensor(lens, dtype=torch.int32), **nothing, **places)
    sizes = StepSizes(*heads, width, width, 2, 44, rows, dtype, torch.device("cpu"))
    attn: Any = spattn.compile(pattern, backend="triton")
    decoder = GpuDecoder(attn, sizes)
    assert any(launcher._group == 2 for group in decoder._groups for launcher in group._launchers.values())
    decoder.run(step, cache, tensors)
    arrays = {name: x.numpy() for name, x in tensors.items()}
    for b, kv_len in enumerate(lens):
        sizes_of = {"num_heads": heads[0], "batch_size": 2, "tensors": arrays, "only": b}
        mask = oracle.mask(attn.pattern.syntax, rows, kv_len, **sizes_of).copy()
        keys, values = (x[b : b + 1, :kv_len].transpose(1, 2) for x in (k, v))
        out, lse = oracle.attention(q[b : b + 1], keys, values, mask)
        torch.testing.assert_close(step.out[b : b + 1].double(), out, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
        torch.testing.assert_close(step.lse[b : b + 1].double(), lse, atol=5e-6, rtol=5e-6)
