"""spattn beside FlexAttention on one GPU, in one run: the README's table.

    python examples/beside_flexattention.py [--tuned WORKLOAD,..] [WORKLOAD ..]

Forward, bf16, medians of many; inputs random. Each answer is checked first, on sampled rows against float64 and as a
whole against FlexAttention's. The mask of FlexAttention is built outside of the timing.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import spattn
from spattn.philox import random_blocks

Mask = Callable[[Any, Any, Any, Any], Any]
DEVICE = "cuda"


@dataclass(frozen=True)
class Workload:
    """A pattern and the same as a mask function; `tensors` are the pattern's, made on the device."""

    pattern: str
    mask: Callable[[dict[str, torch.Tensor]], Mask]
    q_heads: int
    kv_heads: int
    length: int
    head_dim: int
    batch: int = 1
    tensors: Callable[[], dict[str, torch.Tensor]] = dict
    bindings: dict[str, int] = field(default_factory=dict)
    mask_heads: int | None = None


def documents(length: int = 65536, mean: int = 2048) -> dict[str, torch.Tensor]:
    """Ids of documents cut at random places."""
    cuts = torch.randperm(length - 1, generator=torch.Generator().manual_seed(0))[: length // mean - 1] + 1
    ids = torch.zeros(length, dtype=torch.int32)
    ids[cuts] = 1
    return {"ids": ids.cumsum(0).to(torch.int32).to(DEVICE)}


def table(blocks: int = 256, density: float = 0.1) -> dict[str, torch.Tensor]:
    """Random blocks and the diagonal."""
    marks = torch.rand(blocks, blocks, generator=torch.Generator().manual_seed(0)) < density
    return {"t": (marks | torch.eye(blocks, dtype=torch.bool)).to(DEVICE)}


def drawn(heads: int = 16, blocks: int = 256) -> torch.Tensor:
    """[heads, blocks, blocks]: what `random(3)` draws."""
    chosen = random_blocks(3, 0, False, blocks, np.arange(heads), np.arange(blocks))
    marks = torch.zeros(heads, blocks, blocks, dtype=torch.bool)
    return marks.scatter_(2, torch.from_numpy(np.ascontiguousarray(chosen)).long(), True).to(DEVICE)


def example_mask(_: dict[str, torch.Tensor]) -> Mask:
    """`local(128) | global([0, 7]) | random(3)`."""
    marks = drawn()
    return lambda b, h, q, k: (
        ((q - k).abs() <= 128) | (q == 0) | (q == 7) | (k == 0) | (k == 7) | marks[h, q // 64, k // 64]
    )


def neighbours(b: Any, h: Any, q: Any, k: Any) -> Any:
    """13 x 13 neighbours on a grid of 128 x 128, cut at the borders."""
    return ((q // 128 - k // 128).abs() <= 6) & ((q % 128 - k % 128).abs() <= 6)


def plain(mask: Mask) -> Callable[[dict[str, torch.Tensor]], Mask]:
    """A mask that reads no tensor."""
    return lambda tensors: mask


WORKLOADS = {
    "example_16k_d64": Workload(
        "local(128) | global([0, cls]) | random(3)", example_mask, 16, 16, 16384, 64, bindings={"cls": 7}, mask_heads=16
    ),
    "sw1024_16k_d128": Workload(
        "last(1024)", plain(lambda b, h, q, k: (q >= k) & (q - k < 1024)), 16, 16, 16384, 128
    ),
    "sw4096_64k_d128_gqa4": Workload(
        "last(4096)", plain(lambda b, h, q, k: (q >= k) & (q - k < 4096)), 32, 8, 65536, 128
    ),
    "docs_64k_d128": Workload(
        "documents(ids) & causal",
        lambda t: lambda b, h, q, k: (t["ids"][q] == t["ids"][k]) & (q >= k),
        16, 16, 65536, 128, tensors=documents,
    ),
    "blockrand10_32k_d128": Workload(
        "blocks(t, size=128)",
        lambda t: lambda b, h, q, k: t["t"][q // 128, k // 128],
        16, 16, 32768, 128, tensors=table,
    ),
    "dense_causal_8k_d128": Workload("causal", plain(lambda b, h, q, k: q >= k), 16, 16, 8192, 128, batch=2),
    "dense_causal_16k_d64": Workload("causal", plain(lambda b, h, q, k: q >= k), 32, 32, 16384, 64),
    "dilated512x4_32k_d128": Workload(
        "last(512, dilation=4)",
        plain(lambda b, h, q, k: (q >= k) & (q - k < 2048) & ((q - k) % 4 == 0)),
        16, 16, 32768, 128,
    ),
    "strided128_16k_d64": Workload(
        "last(128) | strided(128) & causal",
        plain(lambda b, h, q, k: (q >= k) & ((q - k < 128) | ((q - k) % 128 == 0))),
        16, 16, 16384, 64,
    ),
    "na2d_128x128_r6_d64": Workload(
        "neighborhood(grid=[128, 128], kernel=[13, 13], border=cut)", plain(neighbours), 16, 16, 16384, 64
    ),
    "headers_local256_64k_d128": Workload(
        "(last(256) | columns([::512])) & causal",
        plain(lambda b, h, q, k: (q >= k) & ((q - k < 256) | (k % 512 == 0))),
        16, 16, 65536, 128,
    ),
}  # fmt: skip


def median(call: Callable[[], Any], times: int = 20, warm: int = 5) -> float:
    """Milliseconds."""
    for _ in range(warm):
        call()
    torch.cuda.synchronize()
    found = []
    for _ in range(times):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end))
    return sorted(found)[len(found) // 2]


def inputs(one: Workload) -> list[torch.Tensor]:
    """Random q, k, v."""
    torch.manual_seed(0)
    heads = (one.q_heads, one.kv_heads, one.kv_heads)
    shapes = ((one.batch, count, one.length, one.head_dim) for count in heads)
    return [torch.randn(shape, device=DEVICE, dtype=torch.bfloat16) for shape in shapes]


def error(out: torch.Tensor, qkv: list[torch.Tensor], one: Workload, mask: Mask) -> float:
    """Relative error of sampled rows of the last head against float64."""
    q, k, v = (x[-1, -1].double() for x in qkv)
    rows = torch.cat([torch.arange(16), torch.randint(0, one.length, (48,)), torch.arange(one.length - 16, one.length)])
    rows = rows.to(DEVICE)
    zero, head = torch.tensor(0, device=DEVICE), torch.tensor(one.q_heads - 1, device=DEVICE)
    allowed = mask(zero, head, rows[:, None], torch.arange(one.length, device=DEVICE)[None])
    scores = (q[rows] @ k.T / math.sqrt(one.head_dim)).masked_fill(~allowed, -math.inf)
    expected = scores.softmax(-1) @ v
    return float((out[-1, -1, rows].double() - expected).norm() / expected.norm())


def compare(name: str, one: Workload, tuned: bool) -> None:
    """One line of the table."""
    qkv, tensors = inputs(one), one.tensors()
    mask = one.mask(tensors)
    begin = time.perf_counter()
    attn = spattn.compile(one.pattern, backend="triton", **one.bindings)
    attn.layout()
    planned = (time.perf_counter() - begin) * 1e3
    out = attn(*qkv, **tensors)
    wrong = error(out, qkv, one, mask)
    ours = median(lambda: attn(*qkv, **tensors))
    begin = time.perf_counter()
    length = one.length
    block_mask = torch.compile(create_block_mask)(mask, None, one.mask_heads, length, length, device=DEVICE)
    torch.cuda.synchronize()
    built = time.perf_counter() - begin
    times = []
    for mode in (None, "max-autotune-no-cudagraphs")[: 1 + tuned]:
        flex = torch.compile(flex_attention, dynamic=False, mode=mode)

        def call(flex: Any = flex) -> Any:
            return flex(*qkv, block_mask=block_mask, enable_gqa=one.q_heads != one.kv_heads)

        theirs = call()
        difference = float((out.float() - theirs.float()).norm() / theirs.float().norm())
        times.append(median(call))
        torch._dynamo.reset()
    peers = ", ".join(f"{t:.3f}{'*' * i}" for i, t in enumerate(times))
    print(
        f"{name:26s} spattn {ours:7.3f} ms   FlexAttention {peers} ms   ratio {min(times) / ours:5.2f}   "
        f"planned {planned:.0f} ms, mask built {built:.1f} s   error {wrong:.1e}, to FlexAttention {difference:.1e}",
        flush=True,
    )


def main() -> None:
    """Compares the workloads named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--tuned", default="", help="workloads for which FlexAttention also runs max-autotune")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this needs a GPU")
    print(torch.__version__, torch.cuda.get_device_name())
    for name in options.workloads:
        with torch.no_grad():
            compare(name, WORKLOADS[name], name in options.tuned.split(","))


if __name__ == "__main__":
    main()
