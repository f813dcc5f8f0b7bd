"""The operators `spattn::fwd` and `spattn::bwd`: what torch demands of them, and what a plan's text may say."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import spattn
import spattn.operators
from spattn.call.positions import USUAL
from spattn.errors import ArgumentError, BindError, PatternError, SpattnError, UnsupportedError
from spattn.runtime.operators import BACKWARD, FORWARD, SECOND
from spattn.runtime.options import Plan
from tests.runtime.calls import PATTERNS, derived, drawn, tensors


def plan(pattern: str, backend: str = "torch", **options: Any) -> str:
    names = tuple(spattn.parse(pattern).free_names)
    return Plan(pattern, backend, **{"tf32": False, "tune": False, "tensors": names, **options}).text


def arguments(name: str) -> tuple[Any, ...]:
    """What follows q, k and v."""
    return list(tensors(name).values()), plan(PATTERNS[name]), None, *USUAL, ""


@pytest.mark.parametrize("name", PATTERNS)
def test_torch_finds_no_fault_with_the_operators(name: str) -> None:
    rest = arguments(name)
    given = [x.requires_grad_() for x in drawn()]
    torch.library.opcheck(FORWARD, (*given, *rest))
    plain = [x.detach() for x in given]
    out, lse = FORWARD(*plain, *rest)
    d_out, wanted = (None, [False, True, False]) if name == "groups" else (out, [True] * 3)
    torch.library.opcheck(BACKWARD, (d_out, torch.ones_like(lse), *plain, out, lse, *rest, wanted))
    torch.library.opcheck(BACKWARD, (out, None, *given, out, lse, *rest, wanted))
    torch.library.opcheck(SECOND, (None, *plain[1:], d_out, torch.ones_like(lse), *plain, out, lse, *rest))


@pytest.mark.parametrize("name", PATTERNS)
def test_an_operator_computes_what_a_call_does(name: str) -> None:
    attn, rest = spattn.compile(PATTERNS[name], backend="torch"), arguments(name)
    given = tensors(name)
    mine = derived(lambda *x: FORWARD(*x, *rest), drawn())
    assert all(map(torch.equal, mine, derived(lambda *x: attn(*x, return_lse=True, **given), drawn())))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_answers_are_as_the_fake_says(dtype: torch.dtype) -> None:
    given = [x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in drawn(dtype=dtype)]
    torch.library.opcheck(FORWARD, (*given, *arguments("window")))
    out, lse = FORWARD(*given, *arguments("window"))
    assert out.dtype == dtype
    assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_only_what_is_asked_for_is_computed() -> None:
    given, rest = drawn(), arguments("window")
    out, lse = FORWARD(*given, *rest)
    dq, dk, dv, d_floats = BACKWARD(out, None, *given, out, lse, *rest, [False, True, False])
    assert [dq.numel(), dk.shape, dv.numel(), d_floats] == [0, given[1].shape, 0, []]
    with pytest.raises(ArgumentError, match="wanted has 2 entries, and the plan 3"):
        BACKWARD(out, None, *given, out, lse, *rest, [False, True])


def test_a_plan_is_read_as_it_was_written() -> None:
    text = plan("documents(ids) & causal", "auto", tune=True)
    assert Plan.of(text) == Plan("documents(ids) & causal", "auto", False, True, ("ids",))
    assert Plan.of(text).text == text


GOOD = json.loads(plan("causal"))


@pytest.mark.parametrize(
    ("text", "error", "code"),
    [
        ("", PatternError, "E035"),
        ("[" * 100_000, PatternError, "E035"),
        ("[]", PatternError, "E035"),
        (json.dumps({**GOOD, "spattn": 1}), PatternError, "E035"),
        (json.dumps({**GOOD, "more": 1}), PatternError, "E035"),
        (json.dumps({**GOOD, "tf32": 1}), PatternError, "E035"),
        (json.dumps({**GOOD, "tensors": [1]}), PatternError, "E035"),
        (json.dumps({**GOOD, "pattern": "__import__('os')"}), PatternError, "E009"),
        (json.dumps({**GOOD, "pattern": "locl(3)"}), PatternError, "E012"),
        (json.dumps({**GOOD, "backend": "os"}), UnsupportedError, "E041"),
        (json.dumps({**GOOD, "backend": "triton"}), UnsupportedError, "E061"),
        (json.dumps({**GOOD, "tensors": ["ids"]}), BindError, "E030"),
    ],
)
def test_the_text_of_a_plan_is_not_trusted(text: str, error: type[SpattnError], code: str) -> None:
    with pytest.raises(error) as caught:
        FORWARD(*drawn(), [], text, None, *USUAL, "")
    assert caught.value.code == code


@pytest.mark.parametrize(
    "wrong",
    [
        {"out": torch.zeros(2, 4, 17, 8)},
        {"lse": torch.zeros(2, 4, 16)},
        {"d_out": torch.zeros(2, 4, 17, 16).half()},
        {"d_lse": torch.zeros(1)},
        {"g_k": torch.zeros(2, 4, 21, 16)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_graph_that_hands_over_other_tensors_is_refused(wrong: dict[str, Tensor]) -> None:
    q, k, v = drawn()
    out, lse = FORWARD(q, k, v, *arguments("window"))
    given = {"d_out": out, "d_lse": lse, "q": q, "k": k, "v": v, "out": out, "lse": lse, **wrong}
    upstream = {name: given.pop(name, None) for name in ("g_q", "g_k", "g_v")}
    with pytest.raises(ArgumentError, match=f"E060: {next(iter(wrong))} is"):
        SECOND(*upstream.values(), *given.values(), *arguments("window"))
    if not wrong.keys() & upstream.keys():
        with pytest.raises(ArgumentError, match=f"E060: {next(iter(wrong))} is"):
            BACKWARD(*given.values(), *arguments("window"), [True] * 3)


@pytest.mark.filterwarnings("ignore:Deterministic behavior")
@pytest.mark.parametrize("name", PATTERNS)
def test_torch_s_deterministic_mode_changes_nothing(name: str) -> None:
    attn, given = spattn.compile(PATTERNS[name]), tensors(name)
    usual = derived(lambda *x: attn(*x, return_lse=True, **given), drawn())
    torch.use_deterministic_algorithms(True)
    try:
        mine = derived(lambda *x: attn(*x, return_lse=True, **given), drawn())
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, mine, usual))
