"""The language of scores: text and data are one, errors point into the text, derivatives are those of autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from spattn.errors import SpattnError
from spattn.scores.derivative import derivative
from spattn.scores.evaluation import Values, evaluated, place
from spattn.scores.nodes import Read, Score, Variable, walk
from spattn.scores.parser import parse
from spattn.scores.words import reads, steps
from tests.scores.drawn import SCORES, floats_for

REFUSED = {
    "": "E001",
    "softcap": "E010",
    "softcap(3": "E010",
    "apply(s;2)": "E010",
    "apply(0x10)": "E010",
    "apply(1e999)": "E090",
    "apply(4e38 * s)": "E090",
    "bias(-1e-40)": "E090",
    "bias(1e-999)": "E090",
    "bias(t[h, q - 2147483648])": "E090",
    "bias(t[q * k * q])": "E090",
    "soft(3)": "E012",
    "apply(foo(s))": "E012",
    "softcap()": "E021",
    "apply(min(s))": "E021",
    "softcap(-1)": "E022",
    "softcap(s)": "E022",
    "bias(s)": "E022",
    "alibi(3)": "E022",
    "bias(t[s])": "E025",
    "bias(t[1.5])": "E025",
    "bias(t[q / k])": "E025",
    "bias(t[h] + t)": "E025",
    "bias(c[h])": "E025",
    "apply(exp[3])": "E027",
    "bias(scale)": "E043",
    "apply(" + "-" * 80 + "s)": "E092",
    "bias(1) + " * 20 + "bias(1)": "E093",
    "bias(" + "1 + " * 900 + "1)": "E091",
}


@settings(max_examples=150)
@given(SCORES)
def test_text_is_the_score(score: Score) -> None:
    assert parse(str(score)) == score


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    with pytest.raises(SpattnError) as caught:
        parse(text, {"c": 2})
    assert caught.value.code == REFUSED[text]


DRAWN = [
    """\
E012: there is no word 'softcp' of scores
    bias(1) + softcp(30)
              ^^^^^^ unknown
  hint: did you mean 'softcap'?""",
    """\
E090: a number is beyond what float32 holds
    apply(s * 1e39)
              ^^^^ out of range
  hint: numbers are 0, or from 1.175e-38 to 3.403e+38 in size""",
    """\
E090: an index passes what integers hold
    bias(t[h, k + 3000000000])
              ^^^^^^^^^^^^^^ too large
  hint: its numbers are below 2**31, and whatever positions and heads make of them below 2**63""",
]


@pytest.mark.parametrize("wanted", DRAWN)
def test_an_error_points_into_the_text(wanted: str) -> None:
    with pytest.raises(SpattnError) as caught:
        parse(wanted.splitlines()[1].strip())
    assert str(caught.value) == wanted


def test_numbers_are_bound() -> None:
    assert str(parse("softcap(c) + apply(2 - d * s)", {"c": 30, "d": -0.5})) == "softcap(30) + apply(2 - -0.5 * s)"
    for value in ("30", True, float("nan"), 10**400, None):
        with pytest.raises(SpattnError, match="E031"):
            parse("softcap(c)", {"c": value})
    for value in (1e39, -1e39, 1e-40):
        with pytest.raises(SpattnError, match="E090: c is bound to"):
            parse("bias(c)", {"c": value})


@settings(max_examples=60)
@given(SCORES)
def test_derivatives(score: Score) -> None:
    torch.manual_seed(0)
    heads, length = 3, 5
    shapes = {"q": (1, 1, length, 1), "k": (1, 1, 1, length), "h": (1, heads, 1, 1), "b": (2, 1, 1, 1)}
    variables = {name: torch.arange(max(shape)).view(shape) for name, shape in shapes.items()}
    tensors = floats_for(score, heads, torch.float64)
    for step in steps(score):
        s = torch.randn(2, heads, length, length, dtype=torch.float64, requires_grad=True)
        values = Values({**variables, "s": s}, tensors)
        value = evaluated(step, values).expand_as(s)
        given = {"s": s, **tensors}
        theirs = torch.autograd.grad((value + 0 * s).sum(), list(given.values()), allow_unused=True)
        mine = {name: torch.zeros_like(x, requires_grad=False) for name, x in given.items()}
        mine["s"] = evaluated(derivative(step, Variable("s")), values).expand_as(s)
        for read in {part for part in walk(step) if isinstance(part, Read)}:
            share = evaluated(derivative(step, read), values).expand_as(s)
            where = place(read.index, tensors[read.tensor], values).expand_as(s)
            mine[read.tensor].view(-1).index_add_(0, where.flatten(), share.flatten())
        for (name, one), other in zip(mine.items(), theirs, strict=True):
            torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, msg=name)
    assert set(tensors) == set(reads(score))
