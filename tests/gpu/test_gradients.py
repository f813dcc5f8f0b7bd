"""Gradients on a GPU, by FlashAttention's rule: at most three times the error of dense attention in the same dtype."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import spattn
from spattn.codegen.tile import Tile
from spattn.frontend.syntax import Node
from tests.gpu.test_accuracy import NARROW, PATTERNS, tensors
from tests.kernels import Inputs, Upstream, drawn, drawn_upstream, expected_gradients, gradients, mask_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(240),
    # the dense reference is differentiated in a thread of its own, which begins without a context
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]

LENGTHS = ((1, 1000), (127, 127), (1000, 1000), (300, 2048))


def dense_gradients(given: Inputs, upstream: Upstream, mask: Tensor) -> tuple[Tensor, ...]:
    """Of PyTorch's dense attention in the dtype of the inputs."""
    q, k, v = (x.detach().clone().requires_grad_() for x in (given.q, given.k, given.v))
    group = q.shape[1] // k.shape[1]
    keys, values = (x.repeat_interleave(group, 1) for x in (k, v))
    scores = (q @ keys.mT) * (q.shape[-1] ** -0.5 if given.scale is None else given.scale)
    scores = scores.masked_fill(~mask, -torch.inf).masked_fill(~mask.any(-1, keepdim=True), 0)
    out = scores.softmax(-1).masked_fill(~mask, 0) @ values
    results, given_gradients = [out], [upstream.d_out]
    if upstream.d_lse is not None:
        results.append(scores.float().logsumexp(-1).masked_fill(~mask.any(-1), 0))
        given_gradients.append(upstream.d_lse)
    return torch.autograd.grad(results, (q, k, v), given_gradients)


def check(pattern: str | Node, given: Inputs, *, with_lse: bool = False, tile: Tile | None = None) -> None:
    upstream, mask = drawn_upstream(given, with_lse=with_lse), mask_of(pattern, given).cuda()
    wanted = expected_gradients(pattern, given, upstream, mask)
    dense = dense_gradients(given, upstream, mask)
    found = gradients(pattern, given, upstream, tile)
    for name, mine, theirs, exact in zip(("dq", "dk", "dv"), found, dense, wanted, strict=True):
        rounded = exact.to(mine.dtype)
        # besides what storing rounds: ds is a difference, and of one key alone dense attention has it exactly
        floor = 2 * ((rounded + 0.3 - 0.3) - rounded).abs().max().item() + 1e-5
        error, allowed = ((x.double() - exact).abs().max().item() for x in (mine, theirs))
        assert error <= 3 * allowed + floor, f"{name}: {error:.2e}, dense attention has {allowed:.2e}"
    assert (found[0][~mask.any(-1)] == 0).all()


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(name: str) -> None:
    index = list(PATTERNS).index(name)
    dtype, head_dim = (torch.bfloat16, torch.float16)[index % 2], (64, 128)[index // 2 % 2]
    for i, (q_len, kv_len) in enumerate(LENGTHS):
        batch = 1 + i % 2
        options = {"dtype": dtype, "device": "cuda", "tensors": tensors(PATTERNS[name], kv_len, batch)}
        given = drawn(q_len, kv_len, batch=batch, heads=(4, 2), dims=(head_dim, head_dim), **options)
        check(PATTERNS[name], given, with_lse=bool(i % 2))


@pytest.mark.parametrize("dims", [(16, 16), (40, 40), (96, 64), (192, 128), (256, 256)], ids=str)
def test_head_dimensions(dims: tuple[int, int]) -> None:
    check("last(100)", drawn(300, 300, heads=(2, 1), dims=dims, dtype=torch.bfloat16, device="cuda"))


@pytest.mark.parametrize("dims", NARROW, ids=str)
def test_values_much_narrower_or_wider_than_keys(dims: tuple[int, int]) -> None:
    check("~random(3, block=7)", drawn(300, 300, dims=dims, dtype=torch.float16, device="cuda"))


@pytest.mark.parametrize("heads", [(1, 1), (8, 1), (6, 2)], ids=str)
@pytest.mark.parametrize("pattern", ["causal", "heads([0]) & causal | heads([1:]) & last(64)"])
def test_groups_of_heads(pattern: str, heads: tuple[int, int]) -> None:
    check(pattern, drawn(200, 260, heads=heads, dims=(64, 64), dtype=torch.bfloat16, device="cuda"))


@pytest.mark.parametrize("pattern", ["causal", "strided(8) | last(9)"])
def test_float32_is_exact_to_its_own_rounding(pattern: str) -> None:
    check(pattern, drawn(300, 300, dims=(64, 64), dtype=torch.float32, device="cuda"))


@pytest.mark.parametrize("scale", [0.0, -0.2, 1.0])
def test_scales(scale: float) -> None:
    check("last(50)", drawn(130, 200, dims=(64, 64), dtype=torch.float16, device="cuda", scale=scale))


@pytest.mark.parametrize("name", ["causal", "strided", "owners", "grid"])
def test_splits(name: str) -> None:
    given = drawn(500, 700, heads=(2, 1), dims=(64, 64), dtype=torch.bfloat16, device="cuda")
    check(PATTERNS[name], given, tile=Tile(64, 32, 4, 2, splits=5))


NAMES = ("causal", "strided", "owners", "random", "documents", "table", "heads", "tokens")


def inputs(name: str, seed: int = 0) -> Inputs:
    given = {key: torch.as_tensor(x, device="cuda") for key, x in tensors(PATTERNS[name], 700, 2).items()}
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device": "cuda", "tensors": given, "seed": seed}
    return drawn(500, 700, batch=2, heads=(4, 2), dims=(64, 64), **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_fifty_times(name: str) -> None:
    given = inputs(name)
    upstream = drawn_upstream(given)
    first = gradients(PATTERNS[name], given, upstream, None)
    for _ in range(50):
        assert all(map(torch.equal, first, gradients(PATTERNS[name], given, upstream, None)))


KEYS = (9, 70, 200)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["causal", "window", "strided", "owners", "documents"])
def test_keys_that_a_row_may_not_see_do_not_touch_its_gradients(name: str, poison: float) -> None:
    pattern, where = PATTERNS[name], torch.tensor(KEYS, device="cuda")
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device": "cuda", "tensors": tensors(pattern, 256, 1)}
    given = drawn(250, 256, heads=(2, 1), dims=(64, 64), **options)
    bad = replace(given, k=given.k.index_fill(2, where, poison), v=given.v.index_fill(2, where, poison))
    upstream, mask = drawn_upstream(given), mask_of(pattern, given).cuda()
    safe = ~mask[..., list(KEYS)].any(-1)
    spared = ~(mask & ~safe[..., None]).any(-2).any(1, keepdim=True)
    clean, found = (gradients(pattern, one, upstream, None) for one in (given, bad))
    # tiles that were spoiled are computed again by another kernel, whose sums are rounded otherwise
    for mine, other, same in zip(found, clean, (safe, *(spared.expand(x.shape[:3]) for x in clean[1:])), strict=True):
        torch.testing.assert_close(mine[same], other[same], atol=1e-2, rtol=1e-2)


@pytest.fixture
def never_waits() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("never_waits")
@pytest.mark.parametrize("name", NAMES)
def test_training_does_not_wait_for_the_device(name: str) -> None:
    given = inputs(name)
    attn = spattn.compile(PATTERNS[name], backend="triton")
    parts = [x.detach().clone().requires_grad_() for x in (given.q, given.k, given.v)]

    def step() -> None:
        out, lse = attn(*parts, return_lse=True, **given.tensors)
        torch.autograd.backward([out, lse], [torch.ones_like(out), torch.ones_like(lse)])

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    step()


@pytest.mark.parametrize("name", NAMES)
def test_autograd_gives_what_the_kernels_compute(name: str) -> None:
    given = inputs(name)
    upstream = drawn_upstream(given)
    parts = [x.detach().clone().requires_grad_() for x in (given.q, given.k, given.v)]
    results = spattn.compile(PATTERNS[name], backend="triton")(*parts, return_lse=True, **given.tensors)
    found = torch.autograd.grad(results, parts, (upstream.d_out, upstream.d_lse))
    assert all(map(torch.equal, found, gradients(PATTERNS[name], given, upstream, None)))


def test_the_torch_backend_gives_the_same_bits_again() -> None:
    attn = spattn.compile("last(40) | columns([::7])", backend="torch")
    parts = [torch.randn(1, 4, 900, 64, device="cuda").requires_grad_() for _ in range(3)]
    first, *others = (torch.autograd.grad(attn(*parts).square().sum(), parts) for _ in range(8))
    assert all(torch.equal(x, y) for other in others for x, y in zip(first, other, strict=True))
