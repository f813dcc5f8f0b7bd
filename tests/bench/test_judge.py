"""What counts as the same answer."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from spattn.bench.judge import difference, relative  # noqa: E402


def test_relative():
    one = torch.tensor([3.0, 4.0])
    assert relative(one * 1.1, one) == pytest.approx(0.1)
    assert relative(one, one * 0) == 5.0
    assert relative(one * 1e-8, one * 1e-17) == pytest.approx(5e-8)  # zero but for rounding
    assert relative(one * float("nan"), one) == float("inf")


def test_difference_is_the_largest():
    one = torch.ones(1, 2, 3, 4)
    assert difference((one, one * 1.5), (one, one)) == pytest.approx(0.5)
    none = one * float("nan")
    assert difference((one, none), (one, one)) == difference((one, none), (one, none)) == float("inf")
