"""Positions rounded: what is decided for one call holds for those that stand alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spattn.call.rounding import Rounded, power_of_two, rounded


@given(st.integers(0, 9000), st.integers(0, 9000), st.integers(-5000, 9000))
def test_where_all_keys_are_given_lengths_and_ends_are_rounded_up(q_len: int, kv_len: int, first: int) -> None:
    stop = power_of_two(max(first + q_len, 0))
    keys = power_of_two(kv_len)
    wanted = Rounded((stop - power_of_two(q_len), stop), (0, keys), keys)
    assert rounded((first, first + q_len), (0, kv_len), kv_len) == wanted


@given(st.integers(0, 9000), st.integers(0, 9000), st.integers(0, 9000), st.integers(0, 9000), st.integers(-5000, 9000))
def test_keys_stay_inside_the_whole(q_len: int, before: int, count: int, after: int, first: int) -> None:
    kv_len = before + count + after
    rows, keys, whole = rounded((first, first + q_len), (before, before + count), kv_len)
    assert rows[1] - rows[0] == power_of_two(q_len)
    assert keys[1] - keys[0] == power_of_two(count)
    assert 0 <= keys[0] <= keys[1] <= whole == power_of_two(kv_len)
    assert keys[0] == 0 or before > 0


@pytest.mark.parametrize("count", [1000, 1024, 700])
def test_shards_see_what_they_see(count: int) -> None:
    kept = power_of_two(count)
    for mine in range(1, 8):
        for theirs in range(1, 8):
            rows, keys, _ = rounded(
                (mine * count, (mine + 1) * count), (theirs * count, (theirs + 1) * count), 8 * count
            )
            apart = (rows[0] - keys[0]) // kept
            assert (apart > 0) == (mine > theirs)
            assert (apart < 0) == (mine < theirs)


def test_a_window_of_the_last_keys_rounds_alike_as_it_goes() -> None:
    found = {rounded((n, n + 1), (n + 1 - 600, n + 1), n + 1) for n in range(5000, 8000)}
    assert found == {Rounded((8191, 8192), (8192 - 1024, 8192), 8192)}
