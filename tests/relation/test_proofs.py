"""Proofs: laws that hold, and evidence that stands against those that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings

from spattn import oracle
from spattn.errors import MissingDependencyError, UnsupportedError
from spattn.expressions.nodes import Bool
from spattn.frontend.meaning import free_names, meaning
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Complement, Difference, Intersection, Node, Union
from spattn.relation import affine, proofs
from spattn.relation.emptiness import empty_rows
from spattn.relation.proofs import contains, dead_terms, difference_witness, equals, is_empty
from spattn.relation.witness import Witness
from tests.strategies import patterns

FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def condition(text: str) -> Bool:
    return meaning(parse(text))


def meant(node: Node) -> Bool:
    """The meaning, or the example is not one."""
    try:
        return meaning(node)
    except ValueError:
        reject()


def proved(question: Any, *conditions: Bool) -> Any:
    """The answer; an honest refusal is no counter-example."""
    try:
        return question(*conditions)
    except UnsupportedError:
        reject()


def in_mask(node: Node, witness: Witness) -> bool:
    """Is the pair allowed? Names that the meaning does not read, after simplification, are given anything."""
    neutral = {"documents": np.zeros(witness.kv_len, np.int64), "blocks": np.zeros((1, 1), np.int64)}
    neutral |= dict.fromkeys(("block lists", "draft ancestors", "draft depths"), neutral["blocks"])
    sizes = {"num_heads": witness.num_heads, "batch_size": witness.batch_size}
    tensors = {name: witness.arrays.get(name, neutral.get(role, 0)) for name, role in free_names(node).items()}
    mask = oracle.mask(node, witness.kv_len, witness.kv_len, **sizes, tensors=tensors)
    mask = np.broadcast_to(mask, (witness.batch_size, witness.num_heads, *mask.shape[-2:]))
    return bool(mask[witness.batch, witness.head, witness.q, witness.k])


@FEW
@given(patterns(depth=1), patterns(depth=1))
def test_de_morgan(a: Node, b: Node) -> None:
    left = Complement(Union((a, b)))
    right = Intersection((Complement(a), Complement(b)))
    assert proved(equals, meant(left), meant(right))


@FEW
@given(patterns(depth=1), patterns(depth=1))
def test_absorption(a: Node, b: Node) -> None:
    assert proved(equals, meant(Union((a, Intersection((a, b))))), meant(a))


@FEW
@given(patterns(depth=2))
def test_idempotence(a: Node) -> None:
    assert proved(equals, meant(Union((a, a))), meant(a))
    assert proved(is_empty, meant(Difference(a, a)))


@FEW
@given(patterns(depth=1), patterns(depth=1))
def test_a_difference_is_contained_and_disjoint(a: Node, b: Node) -> None:
    difference = meant(Difference(a, b))
    assert proved(contains, meant(a), difference)
    assert proved(is_empty, meant(Intersection((Difference(a, b), b))))


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(patterns(depth=2), patterns(depth=2))
def test_a_witness_really_differs_and_equal_patterns_have_equal_masks(a: Node, b: Node) -> None:
    witness = proved(difference_witness, meant(a), meant(b))
    if witness is not None:
        assert in_mask(a, witness) != in_mask(b, witness)
        assert in_mask(a, witness) == witness.first
    elif not free_names(a) and not free_names(b):
        for length in (1, 7, 40):
            masks = [np.broadcast_to(oracle.mask(x, length, length), (1, 1, length, length)) for x in (a, b)]
            np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("last(512, dilation=4)", "last(2048) & strided(4)"),
        ("fixed(128, 8)", "chunk(128) | where(k % 128 >= 120)"),
        ("tail(3)", "rows([-1, -2, -3])"),
        ("global([cls])", "rows([cls]) | columns([cls])"),
        ("documents(ids)", "documents(ids) | local(0)"),
        ("within(ids, causal)", "documents(ids) & causal"),
        ("within(segments(cu), causal)", "documents(segments(cu)) & causal"),
        ("within(q_ids, ids, full)", "documents(q_ids, ids)"),
        ("documents(segments(a), ids) & causal", "causal - ~documents(segments(a), ids)"),
        ("valid(n) & full", "valid(n)"),
        ("where(t[k] == t[q])", "where(t[k] == t[q]) | local(0)"),
        ("where(q * k > 3)", "where(k * q >= 4)"),
        ("random(3)", "random(3) & full"),
        ("random(3) & random(4)", "random(4) & random(3)"),
    ],
)
def test_equal_for_all_lengths_and_tensors(a: str, b: str) -> None:
    assert equals(condition(a), condition(b))


@pytest.mark.parametrize(
    ("a", "b", "evidence"),
    [
        ("local(3)", "local(4)", "q=0, k=4, kv_len=5"),
        ("columns([cls])", "rows([cls])", "q=0, k=1, kv_len=2, cls=[1]"),
        ("documents(ids)", "full", "q=0, k=1, kv_len=2, ids=[0, 1]"),
        ("documents(segments(cu))", "documents(segments(cu)) | local(0)", "q=0, k=0, kv_len=1, cu=[0]"),
        ("documents(segments(cu))", "documents(ids)", "q=0, k=0, kv_len=1, cu=[0], ids=[0]"),
        ("documents(q_ids, ids)", "full", "q=0, k=0, kv_len=1, ids=[1], q_ids=[0]"),
        ("documents(segments(a), segments(c))", "none", "q=0, k=0, kv_len=1, a=[0, 1], c=[0, 1]"),
        ("within(ids, chunk(4))", "documents(ids) & chunk(4)", "q=1, k=4, kv_len=5, ids=[0, 1, 1, 1, 1]"),
        ("heads([0:4]) & causal", "causal", "q=0, k=0, kv_len=1, head=4 of 5"),
        ("batch([1]) & causal", "none", "q=0, k=0, kv_len=1, batch=1 of 2"),
        ("valid(n) & sink(4)", "valid(n) & sink(5)", "q=0, k=4, kv_len=5, n=[5]"),
        ("random(3)", "full", "q=0, k=192, kv_len=193, head=0 of 2"),
        ("blocks(t)", "blocks(t) - local(3)", "q=0, k=0, kv_len=1, t=[[1]]"),
    ],
)
def test_a_witness_is_small_and_complete(a: str, b: str, evidence: str) -> None:
    witness = difference_witness(condition(a), condition(b))
    assert str(witness) == evidence


def test_dead_terms_can_go_at_once() -> None:
    node = parse("local(3) | local(5) | causal | last(9) | local(3)")
    assert [str(term) for term in dead_terms(node)] == ["local(3)", "last(9)", "local(3)"]
    assert dead_terms(parse("causal | columns([5])")) == ()


@pytest.mark.parametrize("text", ["causal", "within(ids, causal)", "columns([0])", "random(2) | local(0)", "full"])
def test_every_row_has_a_key(text: str) -> None:
    assert empty_rows(condition(text)) is None


@pytest.mark.parametrize(
    ("text", "call", "certain"),
    [
        ("causal - local(0)", "q=0, k=0, kv_len=1", True),
        ("strided(4) & columns([::4])", "q=1, k=0, kv_len=2", True),
        ("columns([3])", "q=0, k=0, kv_len=1", True),
        ("valid(n)", "q=0, k=0, kv_len=1, n=[0]", True),
        ("random(3)", "q=0, k=0, kv_len=193", False),
        ("documents(segments(cu))", "q=0, k=0, kv_len=1, cu=[0]", True),
        ("documents(q_ids, ids)", "q=0, k=0, kv_len=1, ids=[1], q_ids=[0]", True),
    ],
)
def test_a_row_without_keys(text: str, call: str, certain: bool) -> None:
    row = empty_rows(condition(text))
    assert row is not None
    assert (str(row.call), row.certain) == (call, certain)


def test_too_many_guards_are_refused() -> None:
    text = " | ".join(f"columns([t{i}])" for i in range(7))
    with pytest.raises(UnsupportedError, match="7 different lists"):
        equals(condition(text), condition("causal"))


def test_positions_in_documents_of_two_sides_are_not_guessed() -> None:
    """Queries there are counted from the end of their document: causal is not causal outside."""
    with pytest.raises(UnsupportedError, match="E096"):
        equals(condition("within(q_ids, ids, causal)"), condition("documents(q_ids, ids) & causal"))


def test_over_the_cap_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "OPERATIONS", 10)
    with pytest.raises(UnsupportedError, match="neither proved nor refuted"):
        equals(condition("fixed(128, 8)"), condition("chunk(128) | where(k % 128 >= 120) & full | chunk(64)"))
    assert str(difference_witness(condition("local(3)"), condition("local(2)"))) == "q=0, k=3, kv_len=4"


def test_without_islpy_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affine, "available", False)
    with pytest.raises(MissingDependencyError, match="islpy"):
        equals(condition("causal"), condition("full"))
