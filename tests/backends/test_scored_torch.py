"""Scores on the torch backend, against the oracle in float64 and its gradients by autograd."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spattn
import spattn.nn
import spattn.operators
from spattn import oracle
from spattn.errors import SpattnError
from spattn.frontend.syntax import Node
from spattn.runtime import operators
from spattn.scores.nodes import Score
from spattn.scores.parser import parse
from tests import strategies
from tests.scores.drawn import SCORES, floats_for

LENGTH, HEADS = 24, 4


def leaves(length: int = LENGTH, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, heads, length, 16, dtype=dtype).requires_grad_() for heads in (HEADS, 2, 2)]


def compare(mine: Any, theirs: Any, given: list[torch.Tensor]) -> None:
    for answer in (mine, theirs):
        assert all(torch.equal(torch.isneginf(x), torch.isneginf(y)) for x, y in zip(answer, mine, strict=True))
    found = [
        torch.autograd.grad(x[0].sin().sum() + x[1].cos().nan_to_num().sum(), given, allow_unused=True)
        for x in (mine, theirs)
    ]
    for one, other in zip((*mine, *found[0]), (*theirs, *found[1]), strict=True):
        other = torch.zeros_like(one) if other is None else other
        one = torch.zeros_like(other) if one is None else one
        torch.testing.assert_close(one.double(), other.double(), atol=1e-6, rtol=1e-6)


@settings(max_examples=40)
@given(strategies.patterns(depth=2), SCORES, st.data())
def test_drawn_scores(node: Node, score: Score, data: st.DataObject) -> None:
    tensors = data.draw(strategies.tensors_for(node, LENGTH, LENGTH, 2, HEADS))
    mask = oracle.mask(node, LENGTH, LENGTH, num_heads=HEADS, batch_size=2, tensors=tensors)
    qkv = leaves(dtype=torch.float64)
    floats = floats_for(score, HEADS, torch.float64)
    names = {name: torch.as_tensor(x) for name, x in tensors.items()}
    attn = spattn.compile(str(node), backend="torch", score=str(score))
    mine = attn(*qkv, return_lse=True, **names, **floats)
    theirs = oracle.attention(*qkv, mask, score=score, floats=floats)
    compare(mine, theirs, [*qkv, *floats.values()])


def test_what_is_masked_does_not_matter() -> None:
    qkv, score = leaves(dtype=torch.float64), "apply(s + log(1 + q - k))"
    mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    mine = spattn.attention(*qkv, "causal", score=score, return_lse=True)
    compare(mine, oracle.attention(*qkv, mask, score=parse(score)), qkv)


def test_positions_and_a_scale_that_is_learnt() -> None:
    (q, k, v), slopes = leaves(dtype=torch.float64), torch.rand(HEADS, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    call = {"q_offset": 30, "k_offset": 10, "kv_len": 60, "missing_keys": "ignore"}
    attn = spattn.compile("last(9)", score="alibi(slopes) + softcap(c)", c=2.5)
    mine = attn(q[:, :, :8], k, v, return_lse=True, scale=scale, slopes=slopes, **call)
    mask = oracle.mask(attn.pattern.syntax, 8, 60, q_offset=30, k_offset=10, num_keys=LENGTH)
    score, places = parse("alibi(slopes) + softcap(2.5)"), {"q_offset": 30, "k_offset": 10}
    theirs = oracle.attention(q[:, :, :8] * scale, k, v, mask, 1.0, score=score, floats={"slopes": slopes}, **places)
    compare(mine, theirs, [q, k, v, slopes, scale])


def test_requests_have_positions_of_their_own() -> None:
    q, k, v = leaves(dtype=torch.float64)
    lens = torch.tensor([24, 17])
    slopes = torch.rand(HEADS, dtype=torch.float64)
    attn = spattn.compile("causal", score="alibi(slopes) + bias(b)")
    out = attn(q, k, v, slopes=slopes, kv_lens=lens, q_lens=lens)
    for b, n in enumerate(lens.tolist()):
        parts = (x[b : b + 1, :, :n] for x in (q, k, v))
        alone = spattn.attention(*parts, "causal", score="alibi(slopes)", slopes=slopes)
        torch.testing.assert_close(out[b : b + 1, :, :n], alone)


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("E030", {}),
        ("E060", {"t": torch.zeros(HEADS)}),
        ("E060", {"t": torch.zeros(HEADS, 3, dtype=torch.int64)}),
        ("E060", {"t": torch.zeros(HEADS, 0)}),
        ("E060", {"t": [1.0]}),
        ("E038", {"t": torch.zeros(HEADS, 3), "u": torch.zeros(3)}),
    ],
)
def test_refused_tensors(code: str, given: dict[str, Any]) -> None:
    with pytest.raises(SpattnError) as caught:
        spattn.compile("causal", score="bias(t[h, q - k])")(*leaves(), **given)
    assert caught.value.code == code


def test_refused_by_name() -> None:
    qkv = leaves()
    with pytest.raises(SpattnError, match="E038"):
        spattn.compile("documents(ids)", score="bias(ids)")
    with pytest.raises(SpattnError, match="E038"):
        spattn.compile("causal", score="softcap(30)", w=3)
    out = spattn.attention(*qkv, "causal", score="softcap(30)")
    first = torch.autograd.grad(out.sin().sum(), qkv, create_graph=True)
    with pytest.raises(SpattnError, match="no second derivatives"):
        torch.autograd.grad(first[0].sum(), qkv)
    with pytest.raises(SpattnError, match="vmap adds entries to the batch"):
        torch.func.vmap(lambda q: spattn.attention(q, *qkv[1:], "causal", score="bias(b)"))(qkv[0][None])
    attn, slopes = spattn.compile("causal", score="alibi(slopes)"), torch.rand(3, HEADS)
    with pytest.raises(SpattnError, match="what this score reads is different for each"):
        torch.func.vmap(lambda slopes: attn(*qkv, slopes=slopes))(slopes)


def test_vmap_is_a_loop() -> None:
    """Results, gradients of q, k and v, and each entry's own gradients of what the score reads."""
    attn = spattn.compile("causal", score="softcap(3) + alibi(slopes)", backend="torch")
    given = *(torch.stack([x, x.flip(0), 2 * x]) for x in map(torch.Tensor.detach, leaves())), torch.rand(HEADS)

    def loss(q: Any, k: Any, v: Any, slopes: Any) -> Any:
        return attn(q, k, v, slopes=slopes).sin().sum()

    def mapped(slopes: Any) -> Any:
        return torch.func.vmap(loss, in_dims=dims)(*given[:3], slopes).sum()

    dims, rows = (0, 0, 0, None), [(*(x[i] for x in given[:3]), given[3]) for i in range(3)]
    for function in (
        lambda q, k, v, slopes: attn(q, k, v, slopes=slopes, return_lse=True),
        torch.func.grad(loss, argnums=(0, 2)),
        torch.func.grad(loss, argnums=(0, 1, 2, 3)),
        torch.func.grad(loss, argnums=(3,)),
    ):
        each = torch.func.vmap(function, in_dims=dims)(*given)
        for mine, theirs in zip(each, zip(*(function(*row) for row in rows), strict=True), strict=True):
            torch.testing.assert_close(mine, torch.stack(theirs))
    theirs = sum(torch.func.grad(loss, argnums=3)(*row) for row in rows)
    torch.testing.assert_close(torch.func.grad(mapped)(given[3]), theirs)


@pytest.mark.parametrize("poison", [False, True])
def test_gradients_that_are_asked_for(poison: bool) -> None:
    """Each alone is what it is among all, repaired too, and others are not computed."""
    given = [*(x.detach() for x in leaves(dtype=torch.float64)), torch.rand(HEADS, dtype=torch.float64), torch.rand(1)]
    if poison:
        given[1][:, :, -1] = torch.nan  # the last key, which no row but the last one sees

    def gradients(wanted: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        q, k, v, slopes, c = (x.clone().requires_grad_(i in wanted) for i, x in enumerate(given))
        out = spattn.attention(q, k, v, "causal", score="alibi(slopes) + apply(c * s)", slopes=slopes, c=c)
        return torch.autograd.grad(out[:, :, :-1].sin().sum(), [(q, k, v, slopes, c)[i] for i in wanted])

    every = gradients((0, 1, 2, 3, 4))
    for wanted in ((0,), (1,), (2,), (3,), (4,), (0, 2), (1, 3), (2, 4)):
        for i, mine in zip(wanted, gradients(wanted), strict=True):
            torch.testing.assert_close(mine, every[i], atol=1e-12, rtol=1e-12, equal_nan=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("spattn.backends.torch.backward.add_rows", None)
        gradients((3, 4))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("spattn.backends.torch.scoring.Pairs.derived", None)
        gradients((2,))


def test_packed_requests() -> None:
    q, k, v = (x.detach()[0].transpose(0, 1) for x in leaves(dtype=torch.float64))
    ends, slopes = torch.tensor([0, 9, 9, LENGTH]), torch.rand(HEADS, dtype=torch.float64, requires_grad=True)
    attn = spattn.compile("causal", score="alibi(slopes) + bias(b / 10 * k)")
    out = attn(q, k, v, slopes=slopes, cu_seqlens_q=ends, cu_seqlens_k=ends)
    parts = []
    for b, (first, stop) in enumerate(zip(ends, ends[1:], strict=False)):
        one = (x[first:stop].transpose(0, 1)[None] for x in (q, k, v))
        alone = spattn.attention(*one, "causal", score="alibi(slopes) + bias(c / 10 * k)", c=b, slopes=slopes)
        parts.append(alone[0].transpose(0, 1))
    theirs = torch.cat(parts)
    torch.testing.assert_close(out, theirs)
    found = (torch.autograd.grad(x.sin().sum(), slopes)[0] for x in (out, theirs))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_sinks(dtype: torch.dtype) -> None:
    given = [x.detach().to(dtype).requires_grad_() for x in leaves()]
    sinks, slopes = (torch.rand(HEADS).requires_grad_() for _ in range(2))
    score = "softcap(5) + alibi(slopes)"
    out = spattn.attention(*given, "causal", score=score, sinks=sinks, slopes=slopes)
    mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    theirs, _ = oracle.attention(*given, mask, sinks=sinks, score=parse(score), floats={"slopes": slopes})
    every = [*given, sinks, slopes]
    found = [torch.autograd.grad(x.double().sin().sum(), every) for x in (out, theirs)]
    for one, other in zip((out, *found[0]), (theirs, *found[1]), strict=True):
        assert (one.double() - other.double()).norm() <= 4 * torch.finfo(dtype).eps * other.double().norm()


def test_keys_that_are_masked_may_hold_anything() -> None:
    q, k, v = (x.detach() for x in leaves())
    theirs = spattn.attention(q[:, :, :9], k[:, :, :9], v[:, :, :9], "causal", score="softcap(2) + bias(k)")
    k[:, :, 12], v[:, :, 15] = float("nan"), float("inf")
    out = spattn.attention(q, k, v, "causal", score="softcap(2) + bias(k)")
    torch.testing.assert_close(out[:, :, :9], theirs)


def test_numbers_are_bound_and_pickled() -> None:
    qkv = leaves()
    attn = spattn.compile("last(w)", score="softcap(c) + bias(w)", w=5, c=0.5)
    assert repr(attn) == "spattn.compile('last(5)', backend='auto', score='softcap(0.5) + bias(5)')"
    out = attn(*qkv)
    torch.testing.assert_close(pickle.loads(pickle.dumps(attn))(*qkv), out)  # noqa: S301
    torch.testing.assert_close(spattn.nn.SparseAttention("last(5)", score="softcap(0.5) + bias(5)")(*qkv), out)
    torch.testing.assert_close(spattn.attention(*qkv, "last(w)", score="softcap(c) + bias(w)", w=5, c=0.5), out)
    torch.testing.assert_close(operators.forward(*qkv, [], attn._plan.text, None)[0], out)


def test_traced_and_transformed() -> None:
    """Results and gradients of q, k, v and of what a score reads, as of the eager call."""
    attn = spattn.compile("documents(ids) & causal", score="softcap(c) + alibi(slopes)", backend="torch")
    ids = torch.arange(LENGTH) // 9
    given = [*leaves(), torch.rand(HEADS).requires_grad_(), torch.tensor(3.0).requires_grad_()]

    def loss(q: Any, k: Any, v: Any, slopes: Any, c: Any) -> Any:
        return attn(q, k, v, ids=ids, slopes=slopes, c=c).sin().sum()

    wanted = torch.autograd.grad(loss(*given), given)
    compiled: Any = torch.compile(loss, fullgraph=True)
    ways = torch.autograd.grad(compiled(*given), given), torch.func.grad(loss, argnums=(0, 1, 2, 3, 4))(*given)
    for found in ways:
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    some = torch.autograd.grad(loss(*given), given[3:])
    torch.testing.assert_close(some, wanted[3:])
    plan = attn._plan.text
    tensors = [ids, given[4], given[3]]
    rest = None, None, None, None, None, None, "refuse", ""
    torch.library.opcheck(torch.ops.spattn.fwd.default, (*given[:3], tensors, plan, *rest))
