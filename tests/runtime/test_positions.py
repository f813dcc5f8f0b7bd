"""Where rows and keys stand: drawn positions of drawn patterns against the oracle, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spattn
from spattn.errors import ArgumentError, UnsupportedError
from spattn.frontend.syntax import Node
from spattn.relation import missing
from tests import strategies
from tests.placements import answers, expected, placements

HEADS = 2, 1


@settings(max_examples=120)
@given(st.data())
def test_drawn_positions_are_as_the_oracle_has_them(data: st.DataObject) -> None:
    node, drawn = data.draw(strategies.patterns(depth=2)), data.draw(placements())
    tensors = data.draw(strategies.tensors_for(node, drawn.q_len, drawn.kv_len, len(drawn.entries), HEADS[0]))
    inputs = drawn.inputs(0, HEADS, 8)
    attn = spattn.compile(str(node), backend="torch")
    found = answers(attn, drawn, inputs, {name: torch.as_tensor(x) for name, x in tensors.items()})
    for mine, wanted in zip(found, expected(node, drawn, inputs, tensors), strict=True):
        torch.testing.assert_close(mine.double(), wanted, atol=2e-5, rtol=2e-5)


SHARDS = st.tuples(st.integers(1, 9), st.integers(0, 14), st.integers(0, 14), st.integers(1, 20), st.integers(-4, 12))


@settings(max_examples=80)
@given(strategies.patterns(depth=2).filter(lambda node: not spattn.parse(str(node)).free_names), SHARDS)
def test_a_call_is_refused_just_where_a_row_is_certain_to_lack_a_key(node: Node, shard: tuple[int, ...]) -> None:
    q_len, first, count, kv_len, q_offset = shard
    first = min(first, kv_len)
    count = min(count, kv_len - first)
    pattern, attn = spattn.parse(str(node)), spattn.compile(str(node), backend="torch")
    q, k = torch.zeros(1, 2, q_len, 8), torch.zeros(1, 2, count, 8)
    missing = pattern.mask(q_len, kv_len, q_offset=q_offset, num_heads=2).expand(1, 2, -1, -1).any(1)[0]
    missing[:, first : first + count] = False
    at: dict[str, Any] = {"q_offset": q_offset, "k_offset": first, "kv_len": kv_len}
    unsure = re.search(r"random|bigbird|\*", str(pattern))
    refused = _refused(lambda: attn(q, k, k, **at))
    if refused is None:
        assert unsure or not missing.any()
    else:
        found = [(int(row), int(key)) for row, key in missing.nonzero()]
        row, key = map(int, re.findall(r"E060: row (\d+), at position .*, attends key (\d+),", refused)[0])
        assert (row, key) in found
        assert unsure or row == found[0][0]


def _refused(call: Callable[[], Any]) -> str | None:
    try:
        call()
    except ArgumentError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ["isl", "pair by pair"])
def test_missing_keys_are_found_with_and_without_isl(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = "last(6) | columns([0])"
    if name == "pair by pair":
        monkeypatch.setattr(missing, "_answer", lambda wanted: None)
    missing._missing_key.cache_clear()
    attn, q, k = spattn.compile(node, backend="torch"), torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 6, 8)
    with pytest.raises(ArgumentError, match="row 0, at position 20, attends key 0, and keys 15 .. 20 are given"):
        attn(q, k, k, k_offset=15)
    attn(q, k, k, k_offset=15, missing_keys="ignore")
    spattn.compile("last(6)", backend="torch")(q, k, k, k_offset=15)
    missing._missing_key.cache_clear()


def test_a_question_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing, "_answer", lambda wanted: None)
    missing._missing_key.cache_clear()
    q, k = torch.zeros(1, 1, 5000, 8), torch.zeros(1, 1, 5, 8)
    with pytest.raises(UnsupportedError, match="E096"):
        spattn.compile("last(6)", backend="torch")(q, k, k, k_offset=5000)


WRONG: dict[str, dict[str, Any]] = {
    "q_offset is a str": {"q_offset": "1"},
    "k_offset is a bool": {"k_offset": True},
    "kv_len is a float": {"kv_len": 1.0},
    "kv_len is -1": {"kv_len": -1},
    "kv_len holds -1": {"kv_len": torch.tensor(-1)},
    "q_offset is torch.float32": {"q_offset": torch.tensor(1.0)},
    "k_offset is torch.bool": {"k_offset": torch.tensor(True)},
    "q_offset has shape": {"q_offset": torch.arange(3)},
    "q_lens is a list": {"q_lens": [1, 2]},
    "q_lens has shape": {"q_lens": torch.arange(3)},
    "kv_lens holds": {"kv_lens": torch.tensor([2, 22])},
    "max_seqlen_q is given, and the rows are not packed": {"max_seqlen_q": 3},
    "cu_seqlens_q is given without cu_seqlens_k": {"cu_seqlens_q": torch.arange(3)},
    "q has shape": {"cu_seqlens_q": torch.arange(3), "cu_seqlens_k": torch.arange(3)},
    'missing_keys is "refuse" or "ignore"': {"missing_keys": "maybe"},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_position_is_refused(what: str) -> None:
    q, k = torch.zeros(2, 2, 5, 8), torch.zeros(2, 2, 21, 8)
    with pytest.raises(ArgumentError, match=f"E060: {re.escape(what)}"):
        spattn.compile("last(6)")(q, k, k, **WRONG[what])


PACKED_WRONG: dict[str, dict[str, Any]] = {
    "cu_seqlens_q holds [0, 4, 3]; these ascend": {"cu_seqlens_q": torch.tensor([0, 4, 3])},
    "cu_seqlens_k holds [0, 4, 30]; these ascend": {"cu_seqlens_k": torch.tensor([0, 4, 30])},
    "cu_seqlens_k has shape [2]": {"cu_seqlens_k": torch.tensor([0, 4])},
    "cu_seqlens_q has a request of 4 tokens": {"max_seqlen_q": 3},
    "q_lens is given for packed rows": {"q_lens": torch.tensor([1, 2])},
}


@pytest.mark.parametrize("what", PACKED_WRONG)
def test_ends_of_packed_rows_are_looked_at(what: str) -> None:
    q, k = torch.zeros(7, 2, 8), torch.zeros(9, 2, 8)
    ends = {"cu_seqlens_q": torch.tensor([0, 4, 7]), "cu_seqlens_k": torch.tensor([0, 4, 9])}
    with pytest.raises(ArgumentError, match=re.escape(f"E060: {what}")):
        spattn.compile("last(6)")(q, k, k, **{**ends, **PACKED_WRONG[what]})
