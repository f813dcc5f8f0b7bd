"""What the interpreted tests rest upon: Triton's interpreter multiplies matrices in fp32 and fp16.

bf16 is not here on purpose: the interpreter keeps it as 16-bit integers and multiplies those.
"""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
triton = pytest.importorskip("triton", reason="Triton is not installed")
tl = pytest.importorskip("triton.language")

pytestmark = pytest.mark.interpret


@triton.jit
def _product(a_ptr, b_ptr, out_ptr, BLOCK: tl.constexpr):
    rows = tl.arange(0, BLOCK)
    offsets = rows[:, None] * BLOCK + rows[None, :]
    product = tl.dot(tl.load(a_ptr + offsets), tl.load(b_ptr + offsets), input_precision="ieee")
    tl.store(out_ptr + offsets, product)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_interpreter_multiplies_matrices(dtype):
    assert os.environ["TRITON_INTERPRET"] == "1"
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 16, 16, generator=generator).to(dtype)
    out = torch.empty(16, 16)
    _product[(1,)](a, b, out, BLOCK=16)
    torch.testing.assert_close(out, a.float() @ b.float())
