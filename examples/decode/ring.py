"""Decodes with a ring of bounded memory and with a cache of all tokens, and compares the logits of every step.

    python examples/decode/ring.py --plot memory.png

The model is small and its weights are random: what is compared is the arithmetic. Both are given the same tokens,
those that the ring's logits draw. 10,000 tokens take four minutes of a CPU core.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from model import Model, Sizes
from rich.console import Console
from rich.progress import track
from rich.table import Table

import spattn
from spattn.serving import Decoder, Dense, Ring, Storage

PATTERN = "causal & (last(256) | sink(16))"
SIZES = Sizes()
MIB = 1 << 20


def main(
    tokens: Annotated[int, typer.Option(min=1, help="How many to decode.")] = 10_000,
    pattern: Annotated[str, typer.Option(help="Of the attention.")] = PATTERN,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    plot: Annotated[Path | None, typer.Option(help="Draw the memory here.")] = None,
) -> None:
    """Decodes TOKENS tokens twice, side by side."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the tensors are small: more threads wait for one another
    model = Model(SIZES).to(device).eval()
    attn = spattn.compile(pattern)
    sizes = {"num_kv_heads": SIZES.num_kv_heads, "head_dim": SIZES.head_dim, "max_kv_len": tokens}
    step = attn.decoder(**sizes, num_q_heads=SIZES.num_q_heads, max_batch=1, dtype=torch.float32, device=device)
    caches: dict[str, list[Storage]] = {
        "full": [full(tokens, device) for _ in range(SIZES.depth)],
        "ring": [
            Ring.allocate(attn.pattern.live(), **sizes, batch=1, dtype=torch.float32, device=device)
            for _ in range(SIZES.depth)
        ],
    }
    worst = decode(model, step, caches, tokens)
    console = Console(width=88)
    console.print(f"\n{pattern}\n{tokens:,} tokens, {SIZES.depth} blocks, float32 on {device}")
    console.print(table(caches, tokens))
    console.print(f"greatest difference of logits: {worst:.1e}")
    assert worst < 1e-3, "the ring has lost keys"
    if plot is not None:
        from picture import draw

        counts = [tokens * i // 200 for i in range(201)]
        memory = {name: [mib(name, each, count) for count in counts] for name, each in caches.items()}
        draw(counts, memory, f"{pattern}, {SIZES.depth} blocks", plot)


def full(tokens: int, device: str) -> Dense:
    """A cache of all tokens."""
    k, v = (torch.empty(1, SIZES.num_kv_heads, tokens, SIZES.head_dim, device=device) for _ in range(2))
    return Dense(k, v, torch.zeros(1, dtype=torch.int32, device=device))


@torch.no_grad()
def decode(model: Model, step: Decoder, caches: dict[str, list[Storage]], tokens: int) -> float:
    """The greatest difference of logits."""
    device = next(model.parameters()).device
    token = torch.zeros(1, dtype=torch.int64, device=device)
    worst = torch.zeros((), device=device)
    for position in track(range(tokens), console=Console(stderr=True), description="decoding"):
        logits = {name: model(token, position, step, each) for name, each in caches.items()}
        worst = torch.maximum(worst, (logits["ring"] - logits["full"]).abs().max())
        token = torch.multinomial(logits["ring"].softmax(-1), 1)[:, 0]
    return float(worst)


def mib(name: str, caches: Sequence[Storage], tokens: int) -> float:
    """Memory of keys and values when so many tokens are held: a ring is allocated once."""
    slots = [tokens if name == "full" else cache.keys.shape[1] for cache in caches]
    each = 2 * SIZES.num_kv_heads * SIZES.head_dim * caches[0].keys.element_size()
    return sum(slots) * each / MIB


def table(caches: dict[str, list[Storage]], tokens: int) -> Table:
    """One row a kind of cache."""
    shown = Table("cache")
    for column in ("slots a block", "keys and values, MiB"):
        shown.add_column(column, justify="right")
    for name, each in caches.items():
        shown.add_row(name, f"{each[0].keys.shape[1]:,}", f"{mib(name, each, tokens):.2f}")
    return shown


if __name__ == "__main__":
    typer.run(main)
