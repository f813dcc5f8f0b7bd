"""Which numbers are whole: none passes 64 bits, and what evaluates a score agrees with what says so."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from spattn.scores.evaluation import Values, _value
from spattn.scores.nodes import Score, walk
from spattn.scores.parser import parse
from spattn.scores.whole import BOUNDS, bound, is_whole
from spattn.scores.words import steps
from tests.scores.drawn import SCORES, floats_for

LIMITS = {
    "q": 2**30 - 1,
    "-(q - k)": 2**31 - 2,
    "b * h": (2**31 - 1) ** 2,
    "abs(q * k) + 3": (2**30 - 1) ** 2 + 3,
    "q * k * 2": 2 * (2**30 - 1) ** 2,
    "q * k * q": None,
    "b * h * 2 + b": 2 * (2**31 - 1) ** 2 + 2**31 - 1,
    "b * h * 2 + b * 5": None,
    "min(q * k * q, 1)": None,
    "2147483647": 2**31 - 1,
    "2147483648": None,
    "q / 1": None,
    "exp(q)": None,
    "q + t[h]": None,
    "q * 0.5": None,
}


@pytest.mark.parametrize("text", LIMITS)
def test_bounds(text: str) -> None:
    assert bound(parse(f"bias({text})").terms[0].argument) == LIMITS[text]


@settings(max_examples=60)
@given(SCORES)
def test_values_are_of_the_kind_that_is_said(score: Score) -> None:
    """At the bounds of all names too, where no whole number passes its own bound."""
    variables = {name: torch.tensor([-limit, 0, limit]) for name, limit in BOUNDS.items()}
    values = Values({**variables, "s": torch.zeros(3)}, floats_for(score, 3))
    for node in (part for step in steps(score) for part in walk(step)):
        value = _value(node, values)
        assert (value.dtype == torch.int64) == is_whole(node)
        if is_whole(node):
            assert all(abs(one) <= (bound(node) or 0) for one in value.flatten().tolist())


def test_what_passes_64_bits_is_a_float() -> None:
    variables = {name: torch.tensor(limit) for name, limit in BOUNDS.items()}
    values = Values({**variables, "s": torch.zeros(())}, {})
    (step,) = steps(parse("bias(q * k * q * b)"))
    wanted = float(BOUNDS["q"]) ** 2 * BOUNDS["k"] * BOUNDS["b"]
    torch.testing.assert_close(_value(step, values).item(), wanted, rtol=1e-6, atol=0.0)
