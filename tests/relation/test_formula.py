"""Formulas: equal to counts wherever they claim to hold."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, reject, settings

from spattn import oracle
from spattn.errors import SpattnError
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Node
from spattn.relation.counting import count
from spattn.relation.formula import formula
from tests.strategies import patterns


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(patterns(depth=2, guards=False))
def test_a_formula_is_the_count(node: Node) -> None:
    try:
        found = formula(meaning(node))
    except SpattnError:
        reject()
    if found is None:
        return
    first = -(-found.minimum // found.period)
    for length in ((first + i) * found.period for i in (0, 1, 3, 7)):
        if length <= 700:
            assert found.at(length) == oracle.mask(node, length, length).sum()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("full", "S**2"),
        ("none", "0"),
        ("causal", "S*(S + 1)/2"),
        ("local(256)", "513*S - 65792  for S >= 256"),
        ("last(4096)", "4096*S - 8386560  for S >= 4095"),
        ("local(256) | global([0])", "515*S - 66306  for S >= 257"),
        ("local(128) | global([0, -1])", "261*S - 17030  for S >= 130"),
        ("chunk(1000) & causal", "1001*S/2  for S a multiple of 1000"),
        (
            "(local(255, 0) | columns([::512])) & causal",
            "S**2/1024 + 256*S - 32640  for S >= 512, S a multiple of 512",
        ),
        ("columns([-50::2])", "25*S  for S >= 50, S a multiple of 2"),
        ("prefix_lm(100)", "S**2/2 + S/2 + 4950  for S >= 100"),
    ],
)
def test_in_print(text: str, expected: str) -> None:
    assert str(formula(meaning(parse(text)))) == expected


@pytest.mark.parametrize(
    "text", ["columns([cls])", "documents(ids)", "random(3)", "heads([0])", "where(2 * q < k)", "chunk(5000)"]
)
def test_where_there_is_none(text: str) -> None:
    assert formula(meaning(parse(text))) is None


def test_the_bound_is_tight_and_guarded() -> None:
    found = formula(meaning(parse("local(256)")))
    assert found is not None
    assert found.at(256) == count(meaning(parse("local(256)")), 256, 256) == 256**2
    with pytest.raises(ValueError, match="S >= 256"):
        found.at(255)


def test_long_bounds_are_soon_found() -> None:
    begin = time.perf_counter()
    assert str(formula(meaning(parse("local(2000000000)")))).endswith("for S >= 4000000006")
    found = formula(meaning(parse("neighborhood([1024, 1024], [13, 13])")))
    assert found is not None
    assert found.coefficients == (0, 0, 2**20 * 169)
    assert time.perf_counter() - begin < 15
