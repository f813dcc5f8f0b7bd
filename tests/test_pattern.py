"""The public Pattern: text, algebra, mask, and what it says of itself."""

from __future__ import annotations

import importlib
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from spattn import oracle
from spattn.errors import ArgumentError, BindError, MissingDependencyError, PatternError, UnsupportedError
from spattn.frontend.syntax import Node
from spattn.pattern import Pattern, parse
from tests.strategies import patterns

torch = pytest.importorskip("torch")


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(patterns(depth=2), patterns(depth=1))
def test_text_and_back(a: Node, b: Node) -> None:
    for built in (Pattern(a), Pattern(a) | Pattern(b), Pattern(a) & Pattern(b), Pattern(a) - Pattern(b), ~Pattern(a)):
        assert parse(str(built)) == built
        assert Pattern.from_dict(json.loads(json.dumps(built.to_dict()))) == built


def test_operators_are_the_languages() -> None:
    p = parse("local(2)")
    assert p | "columns([0])" == parse("local(2) | columns([0])")
    assert "causal" & (p | "full") == parse("causal & (local(2) | full)")
    assert p | "sink(1)" | "tail(1)" == parse("local(2) | sink(1) | tail(1)")
    assert "full" - p == parse("full - local(2)")
    assert ~(p | "full") == parse("~(local(2) | full)")
    assert {p: 1}[parse("local(2)")] == 1
    assert pickle.loads(pickle.dumps(p)) == p  # noqa: S301  our own bytes
    assert repr(p) == "Pattern('local(2)')"


def test_names_are_bound_or_free() -> None:
    p = parse("local(w) | global([0, cls])", w=3)
    assert str(p) == "local(3) | global([0, cls])"
    assert p.free_names == {"cls": "tokens"}
    assert Pattern.of(p, cls=7) == parse("local(3) | global([0, 7])")
    assert parse("layers([0]) & causal", layer=0).equals("causal")
    with pytest.raises(BindError, match="used as"):
        _ = parse("columns([x])") | "documents(x)"


@pytest.mark.parametrize("tokens", [[0, 5], np.array([0, 5]), torch.tensor([0, 5])])
def test_a_mask_takes_tensors_of_any_kind(tokens: Any) -> None:
    p = parse("columns([t]) | last(2)")
    mask = p.mask(4, 6, t=tokens)
    assert mask.dtype == torch.bool
    assert mask.tolist() == oracle.mask(p.syntax, 4, 6, tensors={"t": np.array([0, 5])}).tolist()
    assert p.count(4, 6, t=tokens) == int(mask.sum())
    assert p.density(4, 6, t=tokens) == float(mask.double().mean())


def test_heads_and_batch_spread_the_mask() -> None:
    p = parse("heads([0]) & causal | valid(n) & columns([0])")
    mask = p.mask(3, 5, num_heads=2, batch_size=2, n=torch.tensor([0, 5]))
    assert mask.shape == (2, 2, 3, 5)
    assert p.count(3, 5, num_heads=2, batch_size=2, n=[0, 5]) == int(mask.sum())


def test_why() -> None:
    p = parse("local(2) | columns([0, 5]) | tail(1)")
    reasons = p.why(9, 5, kv_len=10)
    assert [str(reason) for reason in reasons] == ["columns([0, 5])", "tail(1)"]
    assert [str(p)[reason.span.start : reason.span.stop] for reason in reasons] == ["columns([0, 5])", "tail(1)"]
    assert p.why(5, 1, kv_len=10) == ()
    assert [str(r) for r in p.why(0, 9, q_len=1, kv_len=10)] == ["local(2)", "tail(1)"]
    with pytest.raises(ArgumentError, match="no pair"):
        p.why(10, 0, kv_len=10)


def test_proofs_are_at_hand() -> None:
    p = parse("causal & local(128)")
    assert p.equals("last(129)")
    assert p.contains("last(5)")
    assert not p.contains("full")
    witness = p.difference_witness("last(128)")
    assert witness is not None
    assert (witness.q, witness.k, witness.kv_len, witness.first) == (128, 0, 129, True)
    assert parse("causal | last(3)").dead_terms() == ("last(3)",)
    assert parse("causal - causal").is_empty()
    assert p.empty_row() is None
    assert str(p.formula()) == "129*S - 8256  for S >= 128"


def test_what_a_call_must_give() -> None:
    p = parse("columns([t])")
    with pytest.raises(BindError, match="does not give"):
        p.count(3, 3)
    with pytest.raises(BindError, match="reads no tensor"):
        p.mask(3, 3, t=[0], u=[1])
    with pytest.raises(ArgumentError, match="q_len"):
        p.count(-1, 3, t=[0])


@pytest.mark.parametrize("data", [{}, {"spattn": 2, "pattern": "causal"}, "causal"])
def test_a_foreign_dictionary_is_refused(data: Any) -> None:
    with pytest.raises(PatternError, match="no pattern that this version can read"):
        Pattern.from_dict(data)


def test_a_mask_without_torch_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match="torch is not installed"):
        parse("causal").mask(2, 2)


def test_a_mask_too_large_is_refused_before_it_is_built() -> None:
    with pytest.raises(UnsupportedError) as caught:
        parse("causal").mask(2**31, 2**31)
    assert caught.value.code == "E094"
    assert str(2**62) in caught.value.message
    with pytest.raises(UnsupportedError):
        parse("heads([0])").mask(2**14, 2**14, num_heads=8)


@pytest.mark.parametrize("pattern", ["causal", "last(20) | columns([0, -1])", "random(2, block=8)"])
@pytest.mark.parametrize("at", [{"k_offset": 30}, {"k_offset": 10, "num_keys": 25}, {"k_offset": -5, "num_keys": 90}])
def test_some_keys_of_a_whole_are_counted(pattern: str, at: dict[str, int]) -> None:
    parsed = parse(pattern)
    mask = parsed.mask(40, 70, **at)
    assert parsed.count(40, 70, **at) == mask.sum()
    assert parsed.density(40, 70, **at) == pytest.approx(mask.double().mean().item())
