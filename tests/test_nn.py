"""The module: it computes what `spattn.attention` does, and survives what is done to modules."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import spattn  # noqa: E402
from spattn.nn import SparseAttention  # noqa: E402

PATTERN = "(last(w) | layers([1]) & columns([::8])) & causal"


def drawn() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 2, 40, 16, requires_grad=True) for _ in range(3)]


def test_it_attends_by_its_pattern_with_its_layer_and_scale() -> None:
    q, k, v = drawn()
    for layer, meant in (0, "last(4)"), (1, "(last(4) | columns([::8])) & causal"):
        out, lse = SparseAttention(PATTERN, layer=layer, scale=0.5, w=4)(q, k, v, return_lse=True)
        wanted, wanted_lse = spattn.attention(q, k, v, meant, scale=0.5, return_lse=True)
        torch.testing.assert_close(out, wanted)
        torch.testing.assert_close(lse, wanted_lse)


def test_gradients_flow_through_it() -> None:
    inputs = drawn()
    found = torch.autograd.grad(SparseAttention("last(4)")(*inputs).square().sum(), inputs)
    wanted = torch.autograd.grad(spattn.attention(*inputs, "last(4)").square().sum(), inputs)
    torch.testing.assert_close(found, wanted)


def test_free_names_and_offsets_are_given_at_each_call() -> None:
    q, k, v = drawn()
    ids = torch.arange(40) // 16
    module = SparseAttention("documents(ids) & causal")
    whole = module(q, k, v, ids=ids)
    torch.testing.assert_close(module(q[:, :, 8:12], k, v, q_offset=8, ids=ids), whole[:, :, 8:12])
    with pytest.raises(spattn.BindError):
        module(q, k, v)


def pickled(module: torch.nn.Module) -> torch.nn.Module:
    again: torch.nn.Module = pickle.loads(pickle.dumps(module))  # noqa: S301  our own
    return again


def moved(module: torch.nn.Module) -> torch.nn.Module:
    return module.to(torch.float64).to("cpu").eval()


def saved(module: torch.nn.Module) -> torch.nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded: torch.nn.Module = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize(
    "survived",
    [copy.deepcopy, pickled, saved, moved],
)
def test_it_survives(survived) -> None:
    q, k, v = drawn()
    module = SparseAttention(PATTERN, layer=1, backend="torch", scale=0.5, w=4)
    wanted = module(q, k, v)
    again = survived(module)
    assert repr(again) == repr(module)
    assert again.scale == 0.5
    assert torch.equal(again(q, k, v), wanted)


def test_it_has_no_state() -> None:
    module = SparseAttention("causal")
    module(*drawn())
    assert not module.state_dict()
    assert not list(module.parameters())
    module.load_state_dict({})
    assert len(pickle.dumps(module)) < 2000


def test_it_shows_its_pattern() -> None:
    stack = torch.nn.Sequential(SparseAttention("local(w)", w=8, tf32=True))
    assert "SparseAttention('local(8)', tf32=True)" in repr(stack)


def test_modules_that_are_alike_share_what_is_compiled() -> None:
    first, second = (SparseAttention("(last(4) | layers([9]) & full) & causal", layer=layer) for layer in (0, 1))
    assert first.attention is second.attention


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"pattern": "locl(4)"}, spattn.PatternError),
        ({"pattern": "causal", "w": 4}, spattn.BindError),
        ({"pattern": "causal", "backend": "abacus"}, spattn.UnsupportedError),
    ],
)
def test_what_cannot_be_compiled_is_said_when_it_is_made(arguments, error) -> None:
    with pytest.raises(error):
        SparseAttention(**arguments)


def test_spattn_alone_imports_no_torch() -> None:
    program = "import sys, spattn; assert 'torch' not in sys.modules; import spattn.nn"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
