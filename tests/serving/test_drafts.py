"""Drafted trees in decoders of the torch backend: what caches keep for them, and what is refused."""

from __future__ import annotations

import pytest
import torch

import spattn
from spattn import serving
from spattn.errors import ArgumentError, BindError, UnsupportedError
from tests.serving.caches import Requests, Shape, cache_of, ends_of, expected, ring_of
from tests.serving.test_decoder import check, decoder_of, packed, queries

TREE = {"a": torch.tensor([0b1, 0b11, 0b101, 0b1011]), "d": torch.tensor([0, 1, 1, 2])}
DRAFT = "draft(a, d, causal & (last(7) | columns([0:3, ::16])))"


@pytest.mark.parametrize("kind", ["dense", "ring"])
def test_a_step_of_drafts(kind: str) -> None:
    shape = Shape(batch=2, tokens=60)
    pattern = spattn.parse(DRAFT)
    cache = ring_of(pattern.live(), shape, 4) if kind == "ring" else cache_of("dense", shape)
    requests, step = Requests(shape), decoder_of(spattn.compile(pattern, backend="torch"), shape, max_new=4)
    requests.append([cache], [31, 9])
    for seed in range(2):
        requests.append([cache], [4, 4])
        q = queries(shape, 1, [4, 4], seed)
        found = step(packed(q), cache, ends_of([4, 4]), return_lse=True, **TREE)
        check(found, expected(pattern.syntax, requests, q, TREE), requests.lens, shape.dtype)


def test_live_keys_are_those_of_the_pattern_inside() -> None:
    inner = "causal & (last(7) | columns([0:3, ::16]))"
    assert spattn.parse(DRAFT).live() == spattn.parse(inner).live()
    assert spattn.parse(f"heads([0]) & {DRAFT} | last(3)").live(num_heads=2).reach == 6
    for cut in (f"{DRAFT} & last(30)", f"~{DRAFT}", f"{DRAFT} - columns([3])"):
        with pytest.raises(UnsupportedError, match="a draft that is cut or negated"):
            spattn.parse(cut).live()


def test_a_ring_without_room_for_all_that_is_drafted() -> None:
    shape = Shape(batch=1, tokens=60)
    pattern = spattn.parse(DRAFT)
    step = decoder_of(spattn.compile(pattern, backend="torch"), shape, max_new=2)
    ring = ring_of(pattern.live(), shape, 2)
    assert isinstance(ring, serving.Ring)
    with pytest.raises(ArgumentError, match="d tells of 4 drafted tokens; with max_new=2 the ring serves 2"):
        step(torch.randn(1, 2, 2, 16), ring, **TREE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a": torch.ones(64, dtype=torch.int64), "d": torch.arange(64)}, "1 to 63 drafted tokens"),
        ({"a": torch.ones(3, 4, dtype=torch.int64)}, r"\[m\] or \[batch, m\] = \[1, m\]"),
        ({"d": torch.arange(3)}, r"as many in all tensors, not a \[4\], d \[3\]"),
        ({"d": torch.tensor(1)}, r"d has shape \[\]"),
        ({"d": None}, r"needs d \(draft depths\)"),
        ({"a": torch.ones(4)}, "a is torch.float32"),
    ],
)
def test_tensors_that_are_no_tree(change: dict[str, torch.Tensor], said: str) -> None:
    q = torch.randn(1, 1, 8, 16)
    with pytest.raises((ArgumentError, BindError), match=said):
        spattn.compile("draft(a, d, causal)", backend="torch")(q, q, q, **{**TREE, **change})


def test_how_it_is_written() -> None:
    assert str(spattn.parse("draft(a, depth=d, A=causal & last(3))")) == "draft(a, d, causal & last(3))"
    assert spattn.parse(DRAFT).free_names == {"a": "draft ancestors", "d": "draft depths"}
    with pytest.raises(UnsupportedError, match="documents has no meaning inside draft"):
        spattn.parse("draft(a, d, documents(ids))")
    with pytest.raises(UnsupportedError, match="draft has no meaning inside blockwise"):
        spattn.parse("blockwise(4, draft(a, d, causal))")
