"""Lengths as people write them."""

from __future__ import annotations

import pytest

from spattn.bench.lengths import lengths, short
from spattn.errors import ArgumentError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4096", (4096,)),
        ("16k, 4K", (4096, 16384)),
        ("4k..64k", (4096, 16384, 65536)),
        ("4k..20k", (4096, 16384, 20480)),
        ("1M,1024k", (1 << 20,)),
    ],
)
def test_lengths(text: str, expected: tuple[int, ...]) -> None:
    assert lengths(text) == expected
    assert lengths(",".join(map(short, expected))) == expected


@pytest.mark.parametrize("text", ["", "0", "4g", "k", "-1", "4k,,8k", "1.5k", "9" * 30])
def test_no_lengths(text: str) -> None:
    with pytest.raises(ArgumentError, match="is no length"):
        lengths(text)
