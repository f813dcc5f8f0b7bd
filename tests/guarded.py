"""Tensors that end, or begin, where a page ends that nobody may touch: a kernel that reads past them ends its process.

`python -m tests.guarded` runs patterns on such keys, values and queries, and says which it runs.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace

import torch
from torch import Tensor

from tests.interpret.quick import quicken
from tests.kernels import SMALL, check, check_gradients, drawn

PATTERNS = {
    "causal": "causal",
    "window": "last(7)",
    "both sides": "local(5)",
    "dense": "full",
    "dilated": "last(4, dilation=3)",
    "strided": "strided(5) & causal | last(4)",
    "several steps": "(last(6) | columns([::4])) & causal",
    "steps in turn": "(anticausal & columns([::3]) | last(3)) - columns([::5])",
    "blocks": "blocks(table, size=16)",
    "documents": "documents(ids) & causal",
    "grid": "neighborhood([6, 7], [3, 3])",
}
LENGTHS = (16, 17, 31, 42, 48)  # tiles have 16 columns
SHARDED = {**PATTERNS, "random": "random(3, block=16) | last(4)"}
SHARDS = ((32, 32, False), (7, 41, False), (0, 41, True))
"""The first key that is given of 64, how many are, and whether they lie before a forbidden page or behind it."""
NOTHING = 0  # of mprotect: may not be read, nor written
_libc = ctypes.CDLL(None, use_errno=True)
_kept: list[mmap.mmap] = []  # as long as tensors may lie in them


def guarded(x: Tensor, *, end: bool) -> Tensor:
    """The same values, dense, with their last byte before a forbidden page, or their first one behind it."""
    page, size = mmap.PAGESIZE, x.numel() * x.element_size()
    room = -(-size // page) * page
    memory = mmap.mmap(-1, room + page)
    _kept.append(memory)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    forbidden = first + room if end else first
    offset = room - size if end else page
    view = torch.frombuffer(memory, dtype=x.dtype, count=x.numel(), offset=offset).view(x.shape).copy_(x)
    assert _libc.mprotect(ctypes.c_void_p(forbidden), page, NOTHING) == 0
    return view


def main() -> None:
    """Each pattern at each length, both ways, and its gradients; then with some keys of a whole."""
    lengths()
    shards()


def shards() -> None:
    """Tiles and blocks of keys that are not given are not read."""
    for name, pattern in SHARDED.items():
        for k_offset, count, end in SHARDS:
            print(name, count, "keys from", k_offset, flush=True)
            tensors = {"ids": torch.arange(64) // 9} if "ids" in pattern else {}
            if "table" in pattern:
                tensors = {"table": torch.ones(4, 4, dtype=torch.bool)}
            at = {"q_offset": 0, "k_offset": k_offset, "kv_len": 64}
            given = drawn(64, count, batch=1, heads=(1, 1), tensors=tensors)
            given = replace(given, **{side: guarded(getattr(given, side), end=end) for side in "kv"}, **at)
            check(pattern, given, SMALL)
            check_gradients(pattern, given, SMALL)


def lengths() -> None:
    """All keys are given."""
    for name, pattern in PATTERNS.items():
        for length in (42,) if name == "grid" else LENGTHS:
            print(name, length, flush=True)
            tensors = {"ids": torch.arange(length) // 9} if "ids" in pattern else {}
            if "table" in pattern:
                count = -(-length // 16)
                tensors = {"table": torch.ones(count, count, dtype=torch.bool)}
            for end in (True, False):
                given = drawn(length, length, batch=1, heads=(1, 1), tensors=tensors)
                given = replace(given, **{side: guarded(getattr(given, side), end=end) for side in "qkv"})
                check(pattern, given, SMALL)
                check_gradients(pattern, given, SMALL)


if __name__ == "__main__":
    quicken()
    main()
