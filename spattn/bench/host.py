"""What a call costs its host, in microseconds: `python -m spattn.bench.host`, on a CPU or a GPU.

Launches are stubbed out: all happens but the kernels and what their driver does, so a machine without a GPU can tell.
With `--launched`, on a GPU, they are not: a call is then timed from an empty queue until the host is free again, and
the difference is what its launches cost. Each way is a process of its own, for what was loaded is kept.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import spattn
from spattn.backends.gpu import Gpu
from spattn.bench.columns import aligned
from spattn.bench.timing import synchronize
from spattn.gpu import derivations, modules

PATTERNS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "causal": {},
    "last(1024)": {},
    "last(4096) | sink(4)": {},
    "(last(256) | columns([::512])) & causal": {},
    "local(256) | global([t])": {"t": (0, 512, 1024, 2048)},
}
"""By text, and the tensors that they read."""
LENGTH, CALLS, RECORDED, WARM = 4096, 300, 60, 10
COLUMNS = "known length", "new length", "known, recorded", "backward"


class Stub:
    """A kernel that does nothing: as generated, as compiled, or of a list."""

    packed_metadata: tuple[Any, ...] = ()
    function = 0

    def __getitem__(self, grid: object) -> Callable[..., Stub]:
        return self._noted

    def _noted(self, *arguments: object, **options: object) -> Stub:
        return self

    def warmup(self, *arguments: object, **options: object) -> None:
        """Compiles nothing."""

    def run(self, *arguments: object) -> None:
        """Launches nothing."""


class Stubs:
    """A module of kernels that do nothing."""

    def __getattr__(self, name: str) -> Stub:
        kernel = Stub()
        setattr(self, name, kernel)
        return kernel


@contextmanager
def without_launches(device: torch.device) -> Iterator[None]:
    """Calls of the GPU's backend launch nothing, and answer what their memory holds."""
    generated: dict[str, defaultdict[str, Stub]] = {}
    lists = Stubs()

    def load(path: Path, text: str) -> defaultdict[str, Stub]:
        return generated.setdefault(text, defaultdict(Stub))

    with ExitStack() as patched:
        patched.enter_context(patch.object(modules, "load", load))
        patched.enter_context(patch.object(derivations, "_kernels", lambda: lists))
        if device.type == "cpu":
            patched.enter_context(patch.object(Gpu, "refusal", lambda self, plans, request: None))
            patched.enter_context(patch.object(torch._C, "_cuda_getCurrentRawStream", lambda index: 0, create=True))
            patched.enter_context(patch.object(torch.cuda, "current_device", lambda: None))
        yield


@dataclass(frozen=True)
class Host:
    """Calls of one pattern, a batch of one, four query heads on two.

    Attributes:
        pattern: The language's text.
        tensors: By name, those that it reads.
        device: Where the calls are made.
    """

    pattern: str
    tensors: Mapping[str, Any]
    device: torch.device

    def microseconds(self) -> tuple[float, ...]:
        """As in `COLUMNS`: a call like the last, one with one key more, one that autograd records, its gradients."""
        attn = spattn.compile(self.pattern, backend="triton")
        q, k, v = self._drawn(4, LENGTH), self._drawn(2, LENGTH), self._drawn(2, LENGTH)
        row, keys = self._drawn(4, 1), self._drawn(2, LENGTH + CALLS + WARM)
        with torch.no_grad():
            known = self._median(lambda i: attn(q, k, v, **self.tensors), CALLS)
            steps = [keys[:, :, : LENGTH + i + 1] for i in range(CALLS + WARM)]
            new = self._median(lambda i: attn(row, steps[i], steps[i], **self.tensors), CALLS)
        leaves = [x.requires_grad_() for x in (q, k, v)]
        outs: list[Tensor] = []
        recorded = self._median(lambda i: outs.append(attn(*leaves, **self.tensors)), RECORDED)
        upstream = torch.ones_like(q)
        return known, new, recorded, self._median(lambda i: torch.autograd.grad(outs[i], leaves, upstream), RECORDED)

    def _drawn(self, heads: int, length: int) -> Tensor:
        return torch.zeros(1, heads, length, 64, device=self.device, dtype=torch.float16)

    def _median(self, call: Callable[[int], object], calls: int) -> float:
        """Of calls with an empty queue before them, in microseconds, the first ones left out."""
        found: list[float] = []
        for i in range(calls + WARM):
            synchronize(self.device)
            begin = perf_counter()
            call(i)
            found.append(perf_counter() - begin)
        return median(found[WARM:]) * 1e6


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m spattn.bench.host", description=__doc__)
    parser.add_argument("--launched", action="store_true", help="launch kernels, on a GPU")
    launched = parser.parse_args().launched
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if launched and device.type == "cpu":
        parser.error("there is no GPU to launch on")
    rows: list[tuple[str, ...]] = [("microseconds", *COLUMNS)]
    with ExitStack() as stack:
        if not launched:
            stack.enter_context(without_launches(device))
        for pattern, values in PATTERNS.items():
            tensors = {name: torch.tensor(value, device=device) for name, value in values.items()}
            rows.append((pattern, *(f"{one:.1f}" for one in Host(pattern, tensors, device).microseconds())))
    print(aligned(rows))


if __name__ == "__main__":
    main()
