"""Constructors simplify and keep the value: each against plain Python."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spattn.expressions import algebra
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import And, Bool, Documents, Int, Member, Not, Or, Relative, Side, Sym, Tokens
from spattn.expressions.tensors import Tensors

X, Y = Sym("x"), Sym("y")
POINTS = [(x, y) for x in range(-9, 10) for y in range(-9, 10)]
NOTHING = Tensors({}, 0)


@dataclass(frozen=True)
class Pair:
    """A node and its values at POINTS by Python's own arithmetic."""

    node: Any
    values: tuple[int, ...]


LEAVES = st.one_of(
    st.sampled_from([Pair(X, tuple(x for x, _ in POINTS)), Pair(Y, tuple(y for _, y in POINTS))]),
    st.integers(-40, 40).map(lambda value: Pair(Int(value), (value,) * len(POINTS))),
)


@st.composite
def numbers(draw, depth=4):
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(LEAVES)
    a, b = draw(numbers(depth=depth - 1)), draw(numbers(depth=depth - 1))
    name = draw(st.sampled_from(["add", "sub", "scale", "floordiv", "mod", "minimum", "maximum", "mul", "absolute"]))
    c = draw(st.integers(1, 12))
    match name:
        case "scale":
            return Pair(algebra.scale(a.node, c - 6), tuple(v * (c - 6) for v in a.values))
        case "floordiv":
            return Pair(algebra.floordiv(a.node, c), tuple(v // c for v in a.values))
        case "mod":
            return Pair(algebra.mod(a.node, c), tuple(v % c for v in a.values))
        case "absolute":
            return Pair(algebra.absolute(a.node), tuple(map(abs, a.values)))
    plain = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "minimum": min, "maximum": max}[name]
    return Pair(getattr(algebra, name)(a.node, b.node), tuple(map(plain, a.values, b.values)))


@st.composite
def truths(draw, depth=3):
    if depth == 0 or draw(st.integers(0, 2)) == 0:
        a, b = draw(numbers(depth=2)), draw(numbers(depth=2))
        name = draw(st.sampled_from(["le", "lt", "eq"]))
        return Pair(getattr(algebra, name)(a.node, b.node), tuple(map(getattr(operator, name), a.values, b.values)))
    a, b = draw(truths(depth=depth - 1)), draw(truths(depth=depth - 1))
    match draw(st.sampled_from(["conj", "disj", "negate"])):
        case "conj":
            return Pair(algebra.conj(a.node, b.node), tuple(x and y for x, y in zip(a.values, b.values, strict=True)))
        case "disj":
            return Pair(algebra.disj(a.node, b.node), tuple(x or y for x, y in zip(a.values, b.values, strict=True)))
    return Pair(algebra.negate(a.node), tuple(not x for x in a.values))


def at_points(node):
    x, y = np.array(POINTS).T
    return np.broadcast_to(evaluate(node, {"x": x, "y": y}, NOTHING), x.shape).tolist()


@given(numbers())
def test_numbers_keep_their_value(pair):
    assert at_points(pair.node) == list(pair.values)


@given(truths())
def test_conditions_keep_their_value(pair):
    assert at_points(pair.node) == list(pair.values)


@given(truths(), numbers(depth=2))
def test_substitution_is_evaluation_elsewhere(pair, other):
    moved = algebra.substitute_bool(pair.node, {X: other.node})
    values = np.array(other.values)
    there = evaluate(pair.node, {"x": values, "y": np.array([y for _, y in POINTS])}, NOTHING)
    assert at_points(moved) == np.broadcast_to(there, values.shape).tolist()


@given(truths(), numbers(depth=2), numbers(depth=2))
def test_select(condition, a, b):
    node = algebra.select(condition.node, a.node, b.node)
    choices = zip(condition.values, a.values, b.values, strict=True)
    assert at_points(node) == [then if truth else otherwise for truth, then, otherwise in choices]


@given(truths())
def test_a_condition_and_its_opposite(pair):
    opposite = algebra.negate(pair.node)
    assert not any(at_points(algebra.conj(pair.node, opposite)))
    assert all(at_points(algebra.disj(pair.node, opposite)))
    assert at_points(algebra.negate(opposite)) == list(pair.values)


@given(truths())
def test_and_and_or_are_flat(pair):
    for part in algebra.subexpressions(pair.node):
        match part:
            case And(args) | Or(args):
                assert len(args) > 1
                assert not any(isinstance(arg, type(part)) for arg in args)
            case Not(arg):
                assert isinstance(arg, Bool)


@pytest.mark.parametrize("length", [0, 1, 5, 8])
def test_members_are_pythons_indices(length):
    tokens = Tokens((-6, -1, 0, 3, 7))
    node = Member(X, tokens, Sym("n"))
    for x in range(-3, 11):
        chosen = [range(length)[t] for t in tokens.values if -length <= t < length]
        assert bool(evaluate(node, {"x": x, "n": length}, NOTHING)) == (x in chosen)


def test_a_relative_condition_reads_the_documents_bounds():
    inner = algebra.le(Sym("k"), algebra.sub(Sym("kv_len"), 2))
    ids = Tensors({"ids": np.array([5, 5, 5, 2, 2, 2, 2])}, 7)
    env = {"q": np.arange(7)[:, None], "k": np.arange(7)[None, :], "kv_len": 7, "b": 0, "h": 0}
    given = evaluate(Relative(Documents(Side("ids"), Side("ids")), inner), env, ids)
    starts, stops = [0] * 3 + [3] * 4, [3] * 3 + [7] * 4
    assert given.tolist() == [[k - starts[q] <= stops[q] - starts[q] - 2 for k in range(7)] for q in range(7)]
