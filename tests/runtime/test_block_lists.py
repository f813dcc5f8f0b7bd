"""Lists of blocks as a call is given them: what is refused, and how it is said."""

from __future__ import annotations

import pytest
import torch

import spattn
from spattn.errors import ArgumentError, BindError, UnsupportedError


def call(lists: torch.Tensor | None = None) -> torch.Tensor:
    q, k = torch.randn(2, 6, 8, 16), torch.randn(2, 2, 32, 16)
    given = {} if lists is None else {"x": lists}
    out: torch.Tensor = spattn.compile("listed_blocks(x, 8)", backend="torch")(q, k, k, **given)
    return out


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        (torch.zeros(4), "x is torch.float32"),
        (torch.tensor([1, 2]), r"x has shape \[2\]; it is lists of blocks"),
        (torch.zeros(3, 0, dtype=torch.int32), r"x has shape \[3, 0\]; it is lists of blocks"),
        (torch.zeros(3, 1, 4, dtype=torch.int32), "first dimensions are batch = 2"),
        (torch.zeros(2, 4, 1, 4, dtype=torch.int32), "heads, which divide 6"),
        (torch.tensor([[3, 0, 1]]), "the lists x do not hold"),
        (torch.tensor([[-1, 0, 1]]), "the lists x do not hold"),
        (torch.tensor([[2, 1, 0]]), "the lists x do not hold"),
        (torch.tensor([[2, 1, 1]]), "the lists x do not hold"),
        (torch.tensor([[1, -1, 1]]), "the lists x do not hold"),
    ],
)
def test_lists_that_are_none(lists: torch.Tensor, said: str) -> None:
    with pytest.raises((ArgumentError, BindError), match=said):
        call(lists)


def test_what_follows_a_list_does_not_matter() -> None:
    torch.manual_seed(0)
    one = call(torch.tensor([[1, 2, 0]]))
    torch.manual_seed(0)
    assert torch.equal(one, call(torch.tensor([[1, 2, -1]])))


def test_a_name_that_is_not_given_and_a_place_that_has_no_meaning() -> None:
    with pytest.raises(BindError, match=r"needs x \(block lists\)"):
        call()
    with pytest.raises(UnsupportedError, match="listed_blocks has no meaning inside blockwise"):
        spattn.parse("blockwise(8, listed_blocks(x))")
    assert str(spattn.parse("quest(x)")) == "quest(x)"
    assert str(spattn.parse("listed_blocks(x, size=16)")) == "listed_blocks(x, 16)"
