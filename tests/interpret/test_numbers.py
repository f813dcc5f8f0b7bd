"""Numbers that pass 32 bits, in bounds and in masks: kernels count with 64 where they must."""

from __future__ import annotations

import pytest

from tests.kernels import PEELED, check, check_gradients, drawn

pytestmark = pytest.mark.interpret

PATTERNS = (
    "local(2147483647)",
    "local(2147483647, 3)",
    "last(1000000, dilation=1000000) | diagonals([5])",
    "where(q * 1000000000 > k)",
    "where(q * k * 1000000000 % 7 == 1) | diagonals([0])",
    "where((q - k) * 2000000000 < 2000000000 * 3 + 1)",
    "causal & where(3 * k <= 2 * q)",
    "columns([2147483647, 3]) | diagonals([0])",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_wide_numbers(pattern: str) -> None:
    check(pattern, drawn(40, 70))
    check(pattern, drawn(70, 70), PEELED)
    check_gradients(pattern, drawn(40, 70))
