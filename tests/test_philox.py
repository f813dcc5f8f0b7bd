"""The stream of random blocks is part of the language: these numbers never change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spattn.philox import STREAM, philox, random_blocks


def words(key, counter):
    return [int(word[0]) for word in philox(key, tuple(np.array([c], np.uint64) for c in counter))]


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        # Random123's known answers for philox4x32-10
        (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, (2**32 - 1,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            0x299F31D0A4093822,
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(key, counter, expected):
    assert words(key, counter) == list(expected)


def floyd(count, seed, past, key_blocks, head, query_block):
    """The same drawing for one row, with Python's integers and sets."""
    available = max(0, min(query_block + 1, key_blocks)) if past else key_blocks
    wanted, drawn = min(count, available), []
    for draw, last in enumerate(range(available - wanted, available)):
        word = words(seed, (query_block % 2**32, draw, head, STREAM))[0]
        value = word * (last + 1) >> 32
        drawn.append(last if value in drawn else value)
    return drawn + [-1] * (count - wanted)


@given(st.integers(0, 9), st.integers(0, 2**64 - 1), st.booleans(), st.integers(0, 40))
def test_blocks_are_drawn_by_floyd(count, seed, past, key_blocks):
    heads, rows = np.array([0, 3]), np.array([-2, 0, 1, 5, 39])
    drawn = random_blocks(count, seed, past, key_blocks, heads, rows)
    for h, row in np.ndindex(2, 5):
        assert drawn[h, row].tolist() == floyd(count, seed, past, key_blocks, int(heads[h]), int(rows[row]))
        kept = [block for block in drawn[h, row].tolist() if block >= 0]
        assert len(set(kept)) == len(kept)


def test_golden_blocks(golden):
    text = ""
    for seed in (0, 1, 2**33 + 5):
        for past in (False, True):
            drawn = random_blocks(4, seed, past, 16, np.arange(2), np.arange(6))
            text += f"seed {seed}, past {past}\n" + "".join(f"  {row.tolist()}\n" for head in drawn for row in head)
    golden("random_blocks.txt", text)


def test_each_block_is_as_likely_as_another():
    drawn = random_blocks(3, 0, False, 8, np.arange(16), np.arange(500))
    share = np.bincount(drawn.ravel(), minlength=8) / drawn.size
    assert np.abs(share - 1 / 8).max() < 0.01
