"""What is printed is the language."""

from __future__ import annotations

import pytest
from hypothesis import given

from spattn.frontend.parser import parse
from tests.strategies import patterns


@given(patterns())
def test_a_printed_pattern_parses_to_itself(pattern):
    assert parse(str(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("local( w = 128 )", "local(128)"),
        ("local(left=1, right=2)", "local(1, 2)"),
        ("local(right=2, left=1, dilation=3)", "local(1, 2, dilation=3)"),
        ("chunk(4, ahead=1)", "chunk(4, ahead=1)"),
        ("(causal) or ((local(3))) and not full", "causal | local(3) & ~full"),
        ("(causal | full) & none", "(causal | full) & none"),
        ("(causal | full) | none", "(causal | full) | none"),
        ("causal - (full - none)", "causal - (full - none)"),
        ("not causal - full", "~causal - full"),
        ("global(7)", "global([7])"),
        ("columns([ 1:, :2, ::3 , a ])", "columns([1:, :2, ::3, a])"),
        ("where(not (q < k) and (q - k) * 2 == -(q + 1))", "where(not q < k and (q - k) * 2 == -(q + 1))"),
        ("where(((q - (1 - h)) % 3) < (k * 2) // 5)", "where((q - (1 - h)) % 3 < k * 2 // 5)"),
        ("where((q < k or q > k) and t[k, h + 1])", "where((q < k or q > k) and t[k, h + 1])"),
        ("neighborhood([4, 4], 3, causal=[true, false])", "neighborhood([4, 4], 3, causal=[1, 0])"),
        ("causal()", "causal"),
    ],
)  # fmt: skip
def test_printing_uses_the_shortest_form(text, printed):
    assert str(parse(text)) == printed
    assert parse(printed) == parse(text)
