"""A tour: a pattern, what it means, how it looks, the kernel it becomes, and a run of it beside the oracle.

    make demo

It needs no GPU: the torch backend runs along the same plan that the Triton kernel is generated from.
"""

from __future__ import annotations

import time

import torch

import spattn
from spattn import oracle
from spattn.analysis.cells import cells
from spattn.analysis.text_picture import ASCII, BLOCKS, text_picture
from spattn.cli.output import can_print, prepare

PATTERN = "local(256) | global([0, cls])"
SHAPE = (1, 4, 1536, 64)  # batch, heads, tokens, head dimension
HEAD = 24  # lines of generated source


def main() -> None:
    """The tour."""
    prepare()
    torch.manual_seed(0)
    attn = spattn.compile(PATTERN, cls=7, backend="torch")
    title(f"spattn.compile({PATTERN!r}, cls=7)")
    print(spattn.compile(PATTERN, cls=7).explain(q_len=SHAPE[2], num_heads=SHAPE[1], head_dim=SHAPE[3]))
    title("its mask")
    picture(attn)
    title("the kernel it becomes (the head)")
    source = attn.source()
    print("\n".join(source.splitlines()[:HEAD]))
    print(f".. {len(source.splitlines()) - HEAD} lines more: spattnc emit {PATTERN!r} --set cls=7")
    title("a run on this machine, beside the oracle")
    run(attn)


def title(text: str) -> None:
    """A heading."""
    print(f"\n== {text}\n")


def picture(attn: spattn.Attention) -> None:
    """The mask in 48 x 48 cells."""
    glyphs = BLOCKS if can_print(BLOCKS.of + BLOCKS.border) else ASCII
    print("\n".join(text_picture(cells(attn.pattern, SHAPE[2], SHAPE[2], 48), glyphs, width=112)))


def run(attn: spattn.Attention) -> None:
    """Forward and backward, and the largest differences to dense attention in float64 over the same pairs."""
    q, k, v = (torch.randn(SHAPE, requires_grad=True) for _ in range(3))
    attn(q, k, v)  # plans, and wakes torch's threads
    begin = time.perf_counter()
    out, lse = attn(q, k, v, return_lse=True)
    seconds = time.perf_counter() - begin
    mask = attn.pattern.mask(SHAPE[2], SHAPE[2])
    wanted, wanted_lse = oracle.attention(q, k, v, mask)
    gradients = torch.autograd.grad(out.square().sum(), (q, k, v))
    wanted_gradients = torch.autograd.grad(wanted.square().sum(), (q, k, v))
    print(f"q, k, v {list(SHAPE)}, {str(q.dtype).removeprefix('torch.')} on {q.device}: {seconds * 1e3:.0f} ms forward")
    print(f"max error of out  {difference(out, wanted):.1e}")
    print(f"max error of lse  {difference(lse, wanted_lse):.1e}")
    for name, found, right in zip("qkv", gradients, wanted_gradients, strict=True):
        print(f"max error of d{name}   {difference(found, right):.1e}")
    assert difference(out, wanted) < 1e-5, "the output is wrong"


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest absolute difference."""
    return float((found.detach().double() - wanted.detach().double()).abs().max())


if __name__ == "__main__":
    main()
