"""Scores drawn from their language, and tensors for them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from spattn.scores.nodes import Expression, Function, Infix, Negative, Number, Read, Score, Term, Variable
from spattn.scores.words import reads

NUMBERS = st.sampled_from((0.5, 1.0, 2.0, 3.0, 0.1)).map(Number)
INDICES = st.sampled_from(
    (
        (),
        (Variable("h"),),
        (Infix("-", Variable("q"), Variable("k")),),
        (Variable("h"), Infix("+", Infix("-", Variable("q"), Variable("k")), Number(4.0))),
        (Variable("b"), Variable("h"), Function("min", (Variable("k"), Number(5.0)))),
    )
)
READS = INDICES.map(lambda index: Read(f"t{len(index)}{len(str(index))}", index))
POSITIONS = st.sampled_from("qkhb").map(Variable)


def _joined(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    """Arithmetic that has no poles, so that rounding stays small."""
    above = inner.map(lambda x: Infix("+", Number(1.0), Function("abs", (x,))))
    return st.one_of(
        st.builds(Infix, st.sampled_from("+-"), inner, inner),
        st.builds(lambda x, y: Infix("*", Function("tanh", (x,)), y), inner, inner),
        st.builds(lambda x, y: Infix("/", x, y), inner, above),
        inner.filter(lambda x: not isinstance(x, Number)).map(Negative),
        above.map(lambda x: Function("log", (x,))),
        inner.map(lambda x: Function("exp", (Function("tanh", (x,)),))),
        st.builds(lambda name, x, y: Function(name, (x, y)), st.sampled_from(("min", "max")), inner, inner),
    )


def expressions(*, with_s: bool) -> st.SearchStrategy[Expression]:
    """Arithmetic with or without s."""
    leaves = st.one_of(NUMBERS, READS, POSITIONS)
    return st.recursive(st.one_of(st.just(Variable("s")), leaves) if with_s else leaves, _joined, max_leaves=5)


SCORES = st.lists(
    st.one_of(
        st.builds(Term, st.just("softcap"), st.sampled_from((Number(2.0), Number(0.5), Number(30.0)))),
        st.just(Term("alibi", Read("slopes", ()))),
        st.builds(Term, st.just("bias"), expressions(with_s=False)),
        st.builds(Term, st.just("apply"), expressions(with_s=True)),
    ),
    min_size=1,
    max_size=3,
).map(lambda terms: Score(tuple(terms)))


def floats_for(score: Score, heads: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Tensors that a score reads, with gradients."""
    sizes = {0: (), 1: (heads,), 2: (heads, 7), 3: (2, heads, 6)}
    found = {name: torch.randn(sizes[rank], dtype=dtype) for name, rank in reads(score).items()}
    return {name: one.requires_grad_() for name, one in found.items()}
