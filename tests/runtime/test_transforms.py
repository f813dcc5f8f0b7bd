"""Calls under checkpointing, torch.func, modes and tensors of other classes: they work, or say why not."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import spattn
from spattn.call.positions import USUAL
from spattn.errors import UnsupportedError
from spattn.runtime.operators import BACKWARD, FORWARD
from tests.runtime.calls import PATTERNS, derived, drawn, tensors

ATTN = spattn.compile("last(6)")


def loss(*given: Tensor) -> Tensor:
    out, lse = ATTN(*given, return_lse=True)
    return out.square().sum() + lse[..., 8:].sum()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", PATTERNS)
def test_checkpoints_compute_it_again(name: str, reentrant: bool) -> None:
    attn, given = spattn.compile(PATTERNS[name]), tensors(name)

    def call(*x: Tensor) -> Any:
        return attn(*x, return_lse=True, **given)

    again = derived(lambda *x: checkpoint(call, *x, use_reentrant=reentrant), drawn())
    assert all(map(torch.equal, again, derived(call, drawn())))


def test_a_selective_checkpoint_keeps_it() -> None:
    contexts = partial(create_selective_checkpoint_contexts, [FORWARD])
    kept = derived(lambda *x: checkpoint(ATTN, *x, use_reentrant=False, context_fn=contexts), drawn())
    assert all(map(torch.equal, kept, derived(ATTN, drawn())))


def test_grad() -> None:
    mine = grad(loss, argnums=(0, 1, 2))(*drawn())
    inputs = [x.requires_grad_() for x in drawn()]
    for one, other in zip(mine, torch.autograd.grad(loss(*inputs), inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_vmap_adds_to_the_batch() -> None:
    q, k, v = (torch.stack([x, x.flip(0), 2 * x]) for x in drawn())
    torch.testing.assert_close(vmap(ATTN)(q, k, v), torch.stack([ATTN(*x) for x in zip(q, k, v, strict=True)]))
    each = vmap(grad(loss, argnums=(0, 1, 2)), in_dims=(0, None, 0))(q, k[0], v)
    one_by_one = [grad(loss, argnums=(0, 1, 2))(q[i], k[0], v[i]) for i in range(3)]
    for mine, theirs in zip(each, zip(*one_by_one, strict=True), strict=True):
        torch.testing.assert_close(mine, torch.stack(theirs))


@pytest.mark.parametrize("pattern", ["batch([0]) & causal", "where(k <= q + b)", "valid(n)"])
def test_vmap_is_refused_where_the_batch_matters(pattern: str) -> None:
    attn = spattn.compile(pattern)
    given = {"n": torch.tensor([3, 4])} if "n" in attn.pattern.free_names else {}
    with pytest.raises(UnsupportedError, match="E061: vmap adds entries to the batch"):
        vmap(lambda *x: attn(*x, **given))(*(x[None] for x in drawn()))


def test_there_is_no_forward_mode() -> None:
    q, k, v = drawn()
    for attempt in (lambda: jvp(lambda x: ATTN(x, k, v), (q,), (q,)), lambda: jacfwd(lambda x: ATTN(x, k, v))(q)):
        with pytest.raises(UnsupportedError, match="no forward-mode derivative"):
            attempt()
    with forward_ad.dual_level(), pytest.raises(UnsupportedError, match="no forward-mode derivative"):
        ATTN(forward_ad.make_dual(q, q), k, v)


PATTERNS_TWICE = {**PATTERNS, "rows without keys": "columns([5:8]) & causal", "padded rows": "rows([2, 9]) | last(2)"}


@pytest.mark.parametrize("name", PATTERNS_TWICE)
def test_second_derivatives_are_those_of_the_gradients(name: str) -> None:
    attn, given = spattn.compile(PATTERNS_TWICE[name]), tensors(name, kv_len=9, q_len=5)
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 4, 5, 2), (2, 2, 9, 2), (2, 2, 9, 3)
    leaves = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]

    def call(*x: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = attn(*x, return_lse=True, **given)
        return out, lse.exp()

    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


def test_a_loss_that_is_linear_in_out_has_second_derivatives() -> None:
    """There the gradient that is given has no graph, and q, k and v alone lead to the second pass."""
    text = spattn.compile("last(6)", backend="torch")._plan.text
    for call in (ATTN, lambda *x: FORWARD(*x, [], text, None, *USUAL, "")[0]):
        found = []
        for attend in (call, dense):
            q, k, v = (x.double().requires_grad_() for x in drawn())
            (first,) = torch.autograd.grad(attend(q, k, v).sum(), q, create_graph=True)
            found.append(torch.autograd.grad(first.square().sum(), (q, k, v)))
        torch.testing.assert_close(*found)


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`last(6)` over all pairs."""
    mask = torch.as_tensor(spattn.parse("last(6)").mask(q.shape[2], k.shape[2]))
    k, v = (x.repeat_interleave(2, 1) for x in (k, v))
    return (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~mask, -torch.inf).softmax(-1) @ v


def test_hessians_by_torch_func() -> None:
    q, k, v = (x.double()[:1, :, :5, :2] for x in drawn())
    mine, theirs = (jacrev(jacrev(lambda *x, f=f: f(*x).sin().sum(), (0, 1, 2)), (0, 1, 2)) for f in (ATTN, dense))
    torch.testing.assert_close(mine(q, k, v), theirs(q, k, v))
    with pytest.raises(UnsupportedError, match="no forward-mode derivative"):
        hessian(lambda x: ATTN(x, k, v).sum())(q)


def test_the_operator_of_gradients_is_differentiable() -> None:
    """As a traced graph holds it: of tensors that nothing ties to each other."""
    q, k, v = (x[:, :, :9, :2] for x in drawn(dtype=torch.float64))
    rest = [], spattn.compile("last(6)", backend="torch")._plan.text, None, *USUAL, ""
    out, lse = FORWARD(q, k, v, *rest)
    given = [x.clone().requires_grad_() for x in (out.cos(), lse.cos(), q, k, v, out, lse)]
    assert torch.autograd.gradcheck(lambda *x: BACKWARD(*x, *rest, [True] * 3)[:3], given, fast_mode=True)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_second_derivatives_do_not_see_keys_that_are_not_allowed(poison: float) -> None:
    attn, found = spattn.compile("last(5) - columns([3, 15])"), []
    for spoilt in (0.0, poison):
        q, k, v = drawn(dtype=torch.float64)
        k, v = (x.index_fill(2, torch.tensor([3, 15]), spoilt) for x in (k, v))
        leaves = [x.requires_grad_() for x in (q, k, v)]
        first = torch.autograd.grad(attn(*leaves).sin().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(x.square().sum() for x in first), leaves))
    torch.testing.assert_close(*found)


def test_there_is_no_third_derivative() -> None:
    q, k, v = drawn()
    with pytest.raises(UnsupportedError, match="no third derivatives"):
        grad(lambda x: grad(lambda x: grad(loss)(x, k, v).sum())(x).sum())(q)
    q.requires_grad_()
    text = ATTN._plan.text
    for out in (ATTN(q, k, v), FORWARD(q, k, v, [], text, None, *USUAL, "")[0]):
        (first,) = torch.autograd.grad(out.sum(), q, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), q, create_graph=True)
        with pytest.raises(UnsupportedError, match="no third derivatives"):
            second.sum().backward()


def test_fake_and_meta_tensors_have_shapes() -> None:
    with FakeTensorMode():
        out, lse = ATTN(*(torch.empty(2, 4, 9, 16).requires_grad_() for _ in range(3)), return_lse=True)
    assert (out.shape, lse.shape, out.requires_grad) == ((2, 4, 9, 16), (2, 4, 9), True)
    assert ATTN(*(x.to("meta") for x in drawn())).shape == (2, 4, 17, 16)


def test_a_mode_sees_one_operator() -> None:
    seen = [node.target for node in make_fx(ATTN)(*drawn()).graph.nodes if node.op == "call_function"]
    assert seen[0] is FORWARD
    assert all(target is not torch.ops.aten.mm.default for target in seen)


class Marked(Tensor):
    """A class of its own without a dispatcher of its own."""


def test_a_parameter_and_a_subclass_are_tensors() -> None:
    q, k, v = drawn()
    wanted = ATTN(q, k, v)
    assert torch.equal(ATTN(torch.nn.Parameter(q), k, v), wanted)
    assert torch.equal(ATTN(q.as_subclass(Marked), k, v), wanted)
