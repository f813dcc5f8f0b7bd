"""Answers follow the tensors of a pattern, however these are written to; gradients follow the answers."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

import spattn
from spattn.call.positions import USUAL
from spattn.errors import BindError
from tests.rewritten import CASES, WAYS, Case, answers, by_alias, inputs

BACKENDS = [pytest.param("torch"), pytest.param("triton", marks=pytest.mark.interpret)]
pytestmark = pytest.mark.parametrize("backend", BACKENDS)


@pytest.mark.parametrize("name", CASES)
def test_answers_and_gradients_follow_what_is_written_before_the_call(name: str, backend: str) -> None:
    case, given = Case.of(name), inputs()
    attn = spattn.compile(case.pattern, backend=backend)
    old, new = (answers(attn, given, x=case.tensor(seed)) for seed in (1, 2))
    assert not torch.equal(old[0], new[0])
    x = case.tensor(1)
    for write in WAYS:
        write(x, case.tensor(2))
        found = answers(attn, given, partial(write, x, case.tensor(1)), x=x)
        assert all(map(torch.equal, found, new)), write.__name__
    assert all(map(torch.equal, answers(attn, given, x=x), old))


@pytest.mark.parametrize("name", ["documents", "blocks"])
def test_what_is_prepared_is_read_once(name: str, backend: str) -> None:
    case, given = Case.of(name), inputs()
    attn = spattn.compile(case.pattern, backend=backend)
    want = answers(attn, given, x=case.tensor(1))
    x = case.tensor(1)
    prepared = attn.prepare(x=x)
    by_alias(x, case.tensor(2))
    for _ in range(2):
        assert all(map(torch.equal, answers(attn, given, prepared=prepared), want))
    with torch.no_grad():
        assert torch.equal(attn(*given, prepared=prepared), want[0])


def test_some_tensors_may_be_prepared_and_the_rest_given(backend: str) -> None:
    attn = spattn.compile("documents(ids) & (blocks(table, size=8) | columns(tokens))", backend=backend)
    ids, table, tokens = (Case.of(name).tensor(1) for name in ("documents", "blocks", "columns"))
    given = inputs()
    want = attn(*given, ids=ids, table=table, tokens=tokens)
    prepared = attn.prepare(ids=ids.clone(), tokens=tokens)
    ids.zero_()
    assert torch.equal(attn(*given, prepared=prepared, table=table), want)
    assert torch.equal(
        spattn.attention(*given, str(attn.pattern), backend=backend, prepared=prepared, table=table), want
    )
    with pytest.raises(BindError, match="the pattern needs table"):
        attn(*given, prepared=prepared)
    with pytest.raises(BindError, match="ids is given, and prepared too"):
        attn(*given, prepared=prepared, table=table, ids=ids)
    with pytest.raises(BindError, match="the pattern reads no tensor ids"):
        spattn.compile("causal", backend=backend)(*given, prepared=prepared)
    with pytest.raises(BindError, match="the pattern reads no tensor other"):
        attn.prepare(other=ids)


def test_other_patterns_take_what_one_prepared(backend: str) -> None:
    ids, given = Case.of("documents").tensor(1), inputs()
    layers = [
        spattn.compile(text, backend=backend) for text in ("documents(ids) & causal", "documents(ids) & local(5)")
    ]
    prepared = layers[0].prepare(ids=ids)
    for attn in layers:
        assert torch.equal(attn(*given, prepared=prepared), attn(*given, ids=ids))


def test_views_and_dtypes_of_the_same_numbers(backend: str) -> None:
    case, given = Case.of("documents"), inputs()
    attn = spattn.compile(case.pattern, backend=backend)
    x = case.tensor(1)
    want = answers(attn, given, x=x)
    wide = torch.full((3 * len(x) + 1,), 9, dtype=x.dtype)
    wide[1::3] = x
    for same in (x.long(), x.to(torch.int8), x.to(torch.int16), wide[1::3], x[None], copy.deepcopy(x)):
        for mine, theirs in zip(answers(attn, given, x=same), want, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["documents", "blocks"])
def test_operators_keep_what_the_answer_was_made_of(name: str, backend: str) -> None:
    case, given = Case.of(name), inputs()
    attn = spattn.compile(case.pattern, backend=backend)
    want = torch.autograd.grad(attn(*given, x=case.tensor(1)).square().sum(), given)
    x = case.tensor(1)
    out, _ = torch.ops.spattn.fwd(*given, [x], attn._plan.text, None, *USUAL, "")
    by_alias(x, case.tensor(2))
    for mine, theirs in zip(torch.autograd.grad(out.square().sum(), given), want, strict=True):
        torch.testing.assert_close(mine, theirs)
