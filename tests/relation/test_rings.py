"""What is kept for ever as progressions, and what a ring does not hold, beside brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from spattn.errors import NotDecodableError, UnsupportedError
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Intersection
from spattn.pattern import Pattern
from spattn.relation.rings import Progression, first_missing, progressions
from tests.strategies import patterns

N = 60
KEPT = {
    "last(9)": (),
    "causal": (Progression(0, 1, None),),
    "causal & (last(9) | sink(4))": (Progression(0, 1, 4),),
    "causal & (last(9) | columns([::8]))": (Progression(0, 8, None),),
    "causal & (last(9) | columns([0:4, ::8]))": (Progression(0, 1, 4), Progression(0, 8, None)),
    "causal & (last(9) | columns([5, 30]))": (Progression(5, 1, 6), Progression(30, 1, 31)),
    "fixed(16, 2) & causal": (Progression(14, 16, None), Progression(15, 16, None)),
    "causal & (last(4) | where(k % 2 == 0 and k % 3 != 0))": (Progression(2, 6, None), Progression(4, 6, None)),
    "causal & columns([7:])": (Progression(7, 1, None),),
}


def positions(held: tuple[Progression, ...], tokens: int) -> set[int]:
    return {k for one in held for k in range(one.first, one.first + one.step * one.count(tokens), one.step)}


@pytest.mark.parametrize("text", KEPT)
def test_what_is_kept_for_ever_is_progressions(text: str) -> None:
    assert progressions(Pattern.of(text).live().kept) == KEPT[text]


def test_more_than_a_few_progressions_are_refused() -> None:
    live = Pattern.of("causal & (last(9) | fixed(200, 100))").live()
    with pytest.raises(UnsupportedError, match="more than 64 progressions: 100 <= .k % 200."):
        progressions(live.kept)


@settings(max_examples=60)
@given(patterns(depth=2, guards=False), st.integers(0, 30))
def test_what_a_ring_does_not_hold_is_found(node: Any, age: int) -> None:
    pattern = Pattern.of(str(Intersection((node, parse("causal")))))
    try:
        live = pattern.live()
        held = progressions(live.kept)
    except (NotDecodableError, UnsupportedError):
        reject()
    kept = positions(held, N)
    assert {*np.flatnonzero(live.kept_mask(N))} <= kept
    missing = [
        (t, int(k)) for t in range(N) for k in np.flatnonzero(live.mask(t)) if t - k > age and int(k) not in kept
    ]
    found = first_missing(live.needed, held, age, N)
    assert (found is None) == (not missing)
    assert found is None or found in missing
