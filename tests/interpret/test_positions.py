"""Where rows and keys stand, by generated kernels: drawn positions against the oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spattn
from spattn.codegen.tile import Tile
from spattn.errors import UnsupportedError
from spattn.frontend.parser import parse
from spattn.gpu import lacks as gpu_lacks
from spattn.gpu.backward import Gradients, differentiate
from spattn.gpu.forward import attend
from spattn.gpu.launch import Options, Outputs
from spattn.runtime.arguments import checked
from tests import strategies
from tests.kernels import plans
from tests.placements import PATTERNS, PATTERNS_BY_REQUEST, answers, expected, placements

pytestmark = pytest.mark.interpret
HEADS = 2, 1


@pytest.mark.parametrize(
    ("pattern", "way"),
    [
        *((pattern, "numbers") for pattern in PATTERNS),
        *((pattern, way) for pattern in PATTERNS_BY_REQUEST for way in ("tensors", "padded", "packed")),
    ],
)
def test_drawn_positions(pattern: str, way: str) -> None:
    @settings(max_examples=3)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        node, drawn = parse(pattern), data.draw(placements((way,)))
        tensors = data.draw(strategies.tensors_for(node, drawn.q_len, drawn.kv_len, len(drawn.entries), HEADS[0]))
        inputs = drawn.inputs(0, HEADS, 16)
        attn = spattn.compile(pattern, backend="triton")
        try:
            found = answers(attn, drawn, inputs, {name: torch.as_tensor(x) for name, x in tensors.items()})
        except UnsupportedError as error:
            if "and no number says" not in str(error):
                raise
            return
        for mine, wanted in zip(found, expected(node, drawn, inputs, tensors), strict=True):
            torch.testing.assert_close(mine.double(), wanted, atol=1e-4, rtol=1e-4)

    check()


LACKING = {
    "within": "within(ids, causal)",
    "random": "random(2, block=4)",
    "segments": "documents(segments(cu))",
    "lists": "listed_blocks(lists, 4)",
    "tokens": "columns(tokens) & where(k < 5) | heads([0]) & ~columns(tokens)",
}


@pytest.mark.xfail(raises=UnsupportedError, strict=True)
@pytest.mark.parametrize("name", gpu_lacks.LACKS)
def test_what_requests_lack(name: str) -> None:
    """Each row of the table: who serves it strikes it out there."""
    pattern = LACKING[name]
    tensors = {
        "ids": torch.zeros(9, dtype=torch.int64),
        "cu": torch.tensor([0, 4, 9]),
        "tokens": torch.arange(3),
        "lists": torch.tensor([[1, 0]]),
    }
    attn, q = spattn.compile(pattern, backend="triton"), torch.randn(2, 1, 9, 16)
    call = {name: x for name, x in tensors.items() if name in spattn.parse(pattern).free_names}
    call |= {"q_lens": torch.tensor([9, 3]), "kv_len": torch.tensor([9, 9])}
    try:
        found = attn(q, q, q, **call)
    except UnsupportedError as error:
        if gpu_lacks.LACKS[name].what not in str(error):
            pytest.fail(f"another refusal: {error}")
        raise
    torch.testing.assert_close(found, spattn.compile(pattern, backend="torch")(q, q, q, **call))


@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:overflow encountered")
@pytest.mark.parametrize("pattern", ["causal", "local(20) | columns([0, 2])", "strided(3)"])
def test_requests_whose_columns_are_split_and_mended(pattern: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v, d_out = (torch.randn(2, 2, n, 16, generator=generator) for n in (40, 90, 90, 40))
    v[:, :, 33, 5] = torch.inf
    at = {"q_lens": torch.tensor([40, 17]), "kv_lens": torch.tensor([90, 50])}
    plan = plans(pattern)
    request = checked(q, k, v, scale=None, tf32=False, roles={}, tensors=at)
    outputs, into = Outputs.of(request), Gradients.of(q, k, v)
    into.clear()
    options = Options(("triton",), tile=Tile(16, 16, 4, 2, splits=3))
    attend(plan, request, outputs, options)
    differentiate(plan, request, outputs, d_out, None, into, options)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out, lse = spattn.compile(pattern, backend="torch")(*leaves, return_lse=True, **at)
    wanted = [out, lse, *torch.autograd.grad(out, leaves, d_out)]
    for mine, one in zip((outputs.out, outputs.lse, into.q, into.k, into.v), wanted, strict=True):
        torch.testing.assert_close(mine, one, atol=1e-4, rtol=1e-4, equal_nan=True)


@pytest.mark.parametrize("pattern", ["documents(segments(cu)) & causal", "documents(q_ids, segments(cu))"])
def test_requests_that_are_cut_into_segments(pattern: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 2, n, 16, generator=generator) for n in (20, 33))
    at = {"q_lens": torch.tensor([20, 17]), "kv_lens": torch.tensor([11, 33])}
    read = {"cu": torch.tensor([2, 9, 20, 31]), "q_ids": torch.arange(20) // 7}
    given = {**at, **{name: x for name, x in read.items() if name in spattn.parse(pattern).free_names}}
    found: list[torch.Tensor] = []
    wanted: list[torch.Tensor] = []
    for backend, into in (("triton", found), ("torch", wanted)):
        leaves = [x.clone().requires_grad_() for x in (q, k, k)]
        out, lse = spattn.compile(pattern, backend=backend)(*leaves, return_lse=True, **given)
        into += [out, lse, *torch.autograd.grad(out.square().sum(), leaves)]
    for mine, one in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, one, atol=1e-4, rtol=1e-4)
