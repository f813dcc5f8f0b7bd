"""On a GPU: where rows and keys stand, in numbers and in tensors that graphs read again; lengths of requests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import spattn
from spattn.errors import UnsupportedError
from spattn.frontend.parser import parse
from tests import strategies
from tests.gpu.test_rewritten import captured
from tests.placements import PATTERNS, PATTERNS_BY_REQUEST, answers, dense, expected, placements

pytestmark = pytest.mark.gpu

HEADS = 4, 2
SAMPLE = {"phases": (Phase.generate,), "database": None, "print_blob": False}


def within(found: list[Tensor], wanted: list[Tensor], usual: list[Tensor]) -> None:
    """FlashAttention's rule: out and lse twice as far off as dense attention of the same dtype, gradients thrice."""
    for i, (mine, one, other) in enumerate(zip(found, wanted, usual, strict=True)):
        finite = one > -torch.inf
        assert torch.equal(mine > -torch.inf, finite)
        errors = [torch.where(finite, x.double() - one, 0).abs().max() for x in (mine, other) if x.numel()]
        assert not errors or errors[0] <= (2 if i < 2 else 3) * errors[1] + 1e-3


@pytest.mark.parametrize(
    ("pattern", "way"),
    [
        *((pattern, "numbers") for pattern in PATTERNS),
        *((pattern, way) for pattern in PATTERNS_BY_REQUEST for way in ("tensors", "padded", "packed")),
    ],
)
def test_drawn_positions(pattern: str, way: str) -> None:
    @settings(max_examples=6, **SAMPLE)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        node, drawn = parse(pattern), data.draw(placements((way,), 150, 300))
        tensors = data.draw(strategies.tensors_for(node, drawn.q_len, drawn.kv_len, len(drawn.entries), HEADS[0]))
        inputs = drawn.inputs(0, HEADS, 64, device="cuda", dtype=torch.bfloat16)
        attn = spattn.compile(pattern, backend="triton")
        on_gpu = {name: torch.as_tensor(x, device="cuda") for name, x in tensors.items()}
        for _ in range(2):  # as it is looked at, and as it is launched again
            try:
                found = answers(attn, drawn, inputs, on_gpu)
            except UnsupportedError as error:
                if "no number says how long the longest whole is" not in str(error):
                    raise
                return
            within(found, expected(node, drawn, inputs, tensors), dense(node, drawn, inputs, tensors))

    check()


def numbers(*values: int) -> Tensor:
    return torch.tensor(values, device="cuda", dtype=torch.int32)


def steps() -> dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """What a graph is captured with, and what it is replayed with."""
    return {
        "decode": (
            {"q_offset": numbers(40), "kv_len": numbers(41)},
            {"q_offset": numbers(199), "kv_len": numbers(200)},
        ),
        "each": ({"kv_len": numbers(41, 90)}, {"kv_len": numbers(250, 7)}),
        "padded": (
            {"q_lens": numbers(3, 8), "kv_lens": numbers(41, 90)},
            {"q_lens": numbers(8, 0), "kv_lens": numbers(256, 3)},
        ),
        "packed": (
            {"cu_seqlens_q": numbers(0, 3, 8), "cu_seqlens_k": numbers(0, 100, 256)},
            {"cu_seqlens_q": numbers(1, 6, 6), "cu_seqlens_k": numbers(0, 20, 200)},
        ),
    }


@pytest.mark.parametrize("name", ["decode", "each", "padded", "packed"])
@pytest.mark.parametrize("pattern", ["causal", "last(64) | columns([0, 1, 2, 3])"])
def test_one_graph_serves_all_steps(pattern: str, name: str) -> None:
    old, new = steps()[name]
    generator = torch.Generator("cuda").manual_seed(0)
    shapes = ((8, 4), (256, 2), (256, 2)) if name == "packed" else ((2, 4, 8), (2, 2, 256), (2, 2, 256))
    given = [torch.randn(*s, 64, generator=generator, device="cuda", dtype=torch.bfloat16) for s in shapes]
    attn = spattn.compile(pattern, backend="triton")

    def both(at: dict[str, Tensor]) -> list[Tensor]:
        leaves = [x.detach().requires_grad_() for x in given]
        out, lse = attn(*leaves, return_lse=True, **at)
        return [out.detach(), lse.detach(), *torch.autograd.grad(out.float().square().sum(), leaves)]

    want = [both(at) for at in (old, new)]
    assert not torch.equal(want[0][0], want[1][0])
    held = {name: x.clone() for name, x in old.items()}
    graph, found = captured(lambda: both(held))
    for which in (1, 0, 1):
        for key, x in held.items():
            x.copy_((old, new)[which][key])
        graph.replay()
        assert all(map(torch.equal, found, want[which]))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_nothing_waits_for_the_device() -> None:
    at: dict[str, Any] = {"q_lens": numbers(3, 8), "kv_lens": numbers(41, 90), "q_offset": numbers(5)}
    q, k = (torch.randn(2, 2, n, 64, device="cuda", dtype=torch.bfloat16) for n in (8, 256))
    attn = spattn.compile("causal", backend="triton")
    attn(q, k, k, **at)
    torch.cuda.set_sync_debug_mode("error")
    try:
        attn(q, k, k, **at)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "pattern", ["blocks(table, size=16)", "random(6, block=16) | last(40)", "last(100) | columns([::16])"]
)
def test_a_window_of_the_last_keys_goes_on(pattern: str) -> None:
    """Each call is launched as the one before, with lists of the blocks in which its own keys lie."""
    generator = torch.Generator("cuda").manual_seed(0)
    whole = torch.randn(2, HEADS[1], 512, 64, generator=generator, device="cuda", dtype=torch.float16)
    table = torch.rand(32, 32, generator=generator, device="cuda") < 0.5
    tensors = {"table": table} if "table" in pattern else {}
    attn, other = (spattn.compile(pattern, backend=backend) for backend in ("triton", "torch"))
    for stop in (300, 301, 317, 333, 400, 416, 512):
        found = []
        for one in (attn, other):
            k = whole[:, :, stop - 128 : stop].clone().requires_grad_()
            q = whole[:, :, stop - 40 : stop].repeat(1, 2, 1, 1).requires_grad_()
            at = {"k_offset": stop - 128, "kv_len": stop, "missing_keys": "ignore"}
            out, lse = one(q, k, k, return_lse=True, **at, **tensors)
            found.append([out, lse, *torch.autograd.grad(out.float().square().sum(), (q, k))])
        for mine, wanted in zip(*found, strict=True):
            torch.testing.assert_close(mine, wanted, atol=1e-2, rtol=1e-2)
