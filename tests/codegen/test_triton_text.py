"""Expressions as Triton: what is said in fewer instructions than it is written in."""

from __future__ import annotations

import pytest

from spattn.codegen.parameters import Parameters
from spattn.codegen.triton_text import TritonText
from spattn.expressions.algebra import add, conj, disj, le, negate, sub
from spattn.expressions.nodes import Bool, Int, K, Q, Sym

BAND = conj(le(Q, add(K, 128)), le(K, add(Q, 3)))


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (BAND, "below(k - q + 128, 132)"),
        (conj(le(0, K), le(K, 63)), "below(k, 64)"),
        (conj(BAND, le(Q, 9)), "below(k - q + 128, 132) & (q <= 9)"),
        (negate(BAND), "~below(k - q + 128, 132)"),
        (disj(BAND, le(K, 4)), "below(k - q + 128, 132) | (k <= 4)"),
        (conj(le(0, K), le(K, Sym("kv_len"))), "(0 <= k) & (k <= kv_len)"),
        (conj(le(K, 5), le(Q, 7)), "(k <= 5) & (q <= 7)"),
        (conj(le(sub(Q, 3), K), le(Int(0), Q)), "(q <= (k + 3)) & (0 <= q)"),
    ],
)
def test_both_ends_of_an_interval_are_one_comparison(condition: Bool, text: str) -> None:
    assert TritonText({}, Parameters()).of(condition) == text
