"""Merged results and sinks on a GPU, by FlashAttention's rule beside dense attention in the same dtype."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import spattn
from spattn import oracle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(120),
    # the dense reference is differentiated in a thread of its own, which begins without a context
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]
PATTERN, LENGTH = "last(300) & rows([3:])", 700


def drawn() -> list[Tensor]:
    """q, k, v and sinks."""
    generator = torch.Generator("cuda").manual_seed(0)
    shapes = (4, LENGTH, 64), (2, LENGTH, 64), (2, LENGTH, 64)
    found = [torch.randn(2, *shape, generator=generator, device="cuda").bfloat16() for shape in shapes]
    return [x.requires_grad_() for x in (*found, torch.tensor([0.5, -2.0, 3.0, 6.0], device="cuda"))]


def mask() -> Tensor:
    return torch.as_tensor(oracle.mask(spattn.parse(PATTERN).syntax, LENGTH, LENGTH)).cuda()


def dense(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """Attention by PyTorch in bfloat16, the sinks a column of the scores."""
    logits = (q @ k.repeat_interleave(2, 1).mT / 8).masked_fill(~mask(), -torch.inf)
    logits = torch.cat((logits, sinks.to(q.dtype)[:, None, None].expand(2, -1, LENGTH, 1)), -1)
    return logits.softmax(-1)[..., :-1] @ v.repeat_interleave(2, 1), logits.float().logsumexp(-1)


def with_sinks(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = spattn.attention(q, k, v, PATTERN, sinks=sinks, return_lse=True, backend="triton")
    return found


def merged(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """The same, of two halves of the pattern and a part whose only key is the sink, without a value."""
    halves = [
        spattn.attention(q, k, v, f"{PATTERN} & columns([{keys}])", return_lse=True, backend="triton")
        for keys in ("::2", "1::2")
    ]
    out, lse = halves[0]
    return spattn.merge([*halves, (torch.zeros_like(out), sinks[:, None].expand_as(lse))])


@pytest.mark.parametrize("call", [with_sinks, merged])
def test_values_and_gradients(call: object) -> None:
    assert callable(call)
    given = drawn()
    exact = oracle.attention(*given[:3], mask(), sinks=given[3])
    upstream = [torch.randn_like(x) for x in exact]
    answers = []
    for found in (call(*given), dense(*given), exact):
        weights = [one.to(x.dtype) for one, x in zip(upstream, found, strict=True)]
        answers.append((*found, *torch.autograd.grad(found, given, weights)))
    names = "out", "lse", "dq", "dk", "dv", "dsinks"
    for name, mine, theirs, wanted in zip(names, *answers, strict=True):
        error, allowed = ((x.double() - wanted.double()).abs().max().item() for x in (mine, theirs))
        floor = 1e-5 + 2 * torch.finfo(mine.dtype).eps * wanted.abs().max().item()
        assert error <= (2 if name in ("out", "lse") else 3) * allowed + floor, name
