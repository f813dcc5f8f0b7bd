"""Calls that exchange addresses, without a GPU: each launch gets the tensors that it got when it was looked at."""

from __future__ import annotations

import weakref
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import spattn
from spattn.backends.gpu import Gpu
from spattn.codegen.kernel_specs import GRAD_Q
from spattn.gpu import backward, derivations, modules

ROW_STATS = 3 * len(GRAD_Q.operands) + GRAD_Q.vectors.index("row_stats")  # the place among the arguments of dq
PATTERNS = {
    "window": "last(6)",
    "splits": "global([0, 9]) | local(3)",
    "groups": "heads([0, 1]) & local(3) | heads([2, 3]) & causal",
    "shared key heads": "heads([0]) & local(3) | heads([1:]) & causal",
    "documents": "documents(ids) & causal",
    "tables": "blocks(table, size=8) & causal | columns(tokens)",
}
TENSORS = {
    "documents": {"ids": torch.arange(40) // 9},
    "tables": {"table": torch.eye(5, dtype=torch.bool), "tokens": torch.tensor([3, 5])},
}


@dataclass
class Launches:
    """Kernels that note what they are launched with: tensors as their addresses, numbers as they are."""

    seen: list[tuple[Any, ...]] = field(default_factory=list)
    kernels: dict[str, Any] = field(default_factory=dict)

    def load(self, path: object, text: str) -> dict[str, Any]:
        return self.kernels.setdefault(text, defaultdict(lambda: Kernel(self)))

    def taken(self) -> list[tuple[Any, ...]]:
        seen, self.seen = self.seen, []
        return seen


@dataclass(eq=False)
class Kernel:
    """Stands for a Triton function, and for what it is compiled to."""

    launches: Launches
    packed_metadata: tuple[int, ...] = ()
    function: int = 0

    def __getitem__(self, grid: object) -> Any:
        return self.noted

    def noted(self, *arguments: Any, **options: Any) -> Kernel:
        self.launches.seen.append(tuple(x.data_ptr() if isinstance(x, Tensor) else x for x in arguments))
        return self

    def warmup(self, *arguments: Any, **options: Any) -> None:
        """Compiles, which leaves nothing to note."""

    def run(self, *arguments: Any) -> None:
        self.launches.seen.append(arguments[9:])


class Deriving:
    """The kernels that derive lists, by name."""

    def __init__(self, kernels: dict[str, Kernel]) -> None:
        self._kernels = kernels

    def __getattr__(self, name: str) -> Kernel:
        return self._kernels[name]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    made = Launches()
    monkeypatch.setattr(modules, "load", made.load)
    monkeypatch.setattr(derivations, "_known", OrderedDict())
    derived = defaultdict(lambda: Kernel(made))
    monkeypatch.setattr(derivations, "_kernels", lambda: Deriving(derived))
    monkeypatch.setattr(Gpu, "refusal", lambda gpu, plans, request: None)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: 0, raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)
    return made


def drawn(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, heads, 40, 16, generator=generator) for heads in (4, 2, 2)]


def launched(launches: Launches, call: Any, given: list[Tensor]) -> list[tuple[Any, ...]]:
    """What a step of training launches; addresses as the names of their tensors."""
    launches.taken()
    out, lse = call(*given)
    ran = named(launches.taken(), (*given, out, lse))  # now: what it allocated is free, and may be taken again
    d_out, d_lse = torch.randn_like(out), torch.randn_like(lse)
    gradients = torch.autograd.grad((out, lse), given, (d_out, d_lse))
    derived = launches.taken()
    # what derives lists is told less, and may have had memory that dq's launches have now
    lists = next(i for i, one in enumerate(derived) if len(one) > ROW_STATS)
    tensors = *given, out, lse, d_out, d_lse, *gradients
    return ran + named(derived[:lists], tensors) + named(derived[lists:], tensors, derived[lists][ROW_STATS])


def named(launched: list[tuple[Any, ...]], tensors: Sequence[Tensor], row_stats: int = 0) -> list[tuple[Any, ...]]:
    names = {x.data_ptr(): f"tensor {i}" for i, x in enumerate(tensors)} | {row_stats: "row_stats"}
    return [tuple(names.get(x, "made") if is_address(x) else x for x in one) for one in launched]


def is_address(x: object) -> bool:
    return isinstance(x, int) and x >= 1 << 32


@pytest.mark.parametrize("name", PATTERNS)
def test_later_calls_launch_with_the_tensors_of_the_first(name: str, launches: Launches) -> None:
    attn = spattn.compile(PATTERNS[name], backend="triton")
    tensors = TENSORS.get(name, {})

    def call(*given: Tensor) -> Any:
        return attn(*given, return_lse=True, **tensors)

    kept = [[x.requires_grad_() for x in drawn(seed)] for seed in range(3)]
    first, *later = (launched(launches, call, given) for given in kept)
    seen = {x for one in first for x in one}
    assert {"row_stats", *(f"tensor {i}" for i in range(8))} <= seen  # dk and dv may be sums of others
    # a later call derives all its lists before it launches the rest
    assert all(Counter(one) == Counter(first) for one in later)


@pytest.mark.parametrize("wanted", ["q", "k", "qv"])
def test_only_what_is_asked_for_is_launched(wanted: str, launches: Launches) -> None:
    attn = spattn.compile("last(6)", backend="triton")
    counts = []
    for seed in range(3):
        given = [x.requires_grad_(name in wanted) for name, x in zip("qkv", drawn(seed), strict=True)]
        out = attn(*given)
        launches.taken()
        out.sum().backward()
        counts.append(len(launches.taken()))
        assert [x.grad is not None for x in given] == [name in wanted for name in "qkv"]
    assert len(set(counts)) == 1


def test_other_tensors_of_a_kind_are_not_looked_at_again(launches: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    launched = backward.launched
    monkeypatch.setattr(backward, "launched", lambda *given: looked_at.append(given[0].kind.name) or launched(*given))
    attn, given = spattn.compile("documents(ids) & causal", backend="triton"), [x.requires_grad_() for x in drawn(0)]
    found = []
    for ids in (
        torch.arange(40),
        torch.zeros(40).long(),
        torch.arange(40).int(),
        torch.arange(80).int()[::2].contiguous(),
    ):
        looked_at.clear()
        attn(*given, ids=ids).sum().backward()
        found.append(len(looked_at))
    assert found == [2, 0, 2, 0]


DERIVED = 3  # launches that find the ends of documents


def test_each_call_derives_and_what_is_prepared_is_derived_once(launches: Launches) -> None:
    attn, ids = spattn.compile("documents(ids) & causal", backend="triton"), torch.arange(40) // 9
    given = [x.requires_grad_() for x in drawn(0)]
    prepared = attn.prepare(ids=ids)
    counts = []
    for tensors in ({"ids": ids}, {"ids": ids}, {"prepared": prepared}, {"prepared": prepared}):
        launches.taken()
        out = attn(*given, **tensors)
        forward = len(launches.taken())
        out.sum().backward()
        counts.append((forward, len(launches.taken())))
    own, derivatives = counts[0][0] - DERIVED, counts[0][1]  # of which none derives anything: a call derives once
    assert counts == [(own + DERIVED, derivatives)] * 3 + [(own, derivatives)]


def test_calls_on_one_tensor_leave_nothing_behind(launches: Launches) -> None:
    attn, ids = spattn.compile("documents(ids) & causal", backend="triton"), torch.arange(64) // 9
    for length in range(8, 64):
        q, k, v = (x[:, :, :1].expand(-1, -1, length, -1).contiguous() for x in drawn(0))
        attn(q, k, v, ids=ids[:length])
        attn(q, k, v, ids=ids[:length], q_offset=3)
    assert not weakref.getweakrefs(ids)


def test_documents_on_an_amd_gpu_ask_for_a_triton_that_compiles_them(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    derivations._require_swap.cache_clear()
    ids = torch.arange(4)
    with pytest.raises(spattn.SpattnError, match="Triton 3.6.0 compiles no compare-and-swap"):
        derivations.document_ends(ids, ids)
