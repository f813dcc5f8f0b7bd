"""Documents at a call: each form in both directions, and tensors of other shapes, which no backend reads otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import spattn
from spattn.errors import ArgumentError
from spattn.frontend.meaning import free_names
from spattn.frontend.parser import parse
from tests.kernels import PEELED, SMALL, check, check_gradients, drawn

pytestmark = pytest.mark.interpret

FORMS = ("segments(cu)", "q_ids, ids", "q_ids, segments(cu)", "segments(q_cu), ids", "segments(q_cu), segments(cu)")
CALLS = ((33, 50, None), (50, 33, None), (40, 40, -6))


def tensors(text: str, q_len: int, kv_len: int, *, ascending: bool) -> dict[str, Any]:
    """Arrays for a call of two batch entries: segments begin past 0, end before the last key and repeat their end."""
    random = np.random.default_rng(4)
    ids, q_ids = random.integers(-2, 3, (2, kv_len)), random.integers(-2, 3, q_len)
    known = {"cu": np.array([3, 20, 20, 27, 31, 31, 31]), "q_cu": np.array([-4, 18, 19, 70])}
    known |= {"ids": np.sort(ids) if ascending else ids, "q_ids": np.sort(q_ids) if ascending else q_ids}
    return {name: known[name] for name in free_names(parse(text))}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["documents({}) & causal", "within({}, last(5))", "~within({}, sink(2) | local(1))"])
def test_each_form_in_both_directions(text: str, form: str) -> None:
    pattern = text.format(form)
    place = FORMS.index(form) + len(text)
    q_len, kv_len, q_offset = CALLS[place % len(CALLS)]
    arrays = tensors(pattern, q_len, kv_len, ascending=place % 2 == 0)
    given = drawn(q_len, kv_len, batch=2, heads=(2, 1), tensors=arrays, q_offset=q_offset)
    check(pattern, given, (SMALL, PEELED)[place % 2])
    check_gradients(pattern, given, (SMALL, PEELED)[place % 2])


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("documents(t)", [0] * 11),
        ("documents(t)", [0, 2, 4, 4]),
        ("documents(t)", [[0] * 12]),
        ("documents(segments(t))", []),
        ("documents(segments(t))", [[0, 5, 12]]),
        ("documents(segments(t)) & causal", [0, 7, 5, 12]),
        ("within(t, segments(cu), causal)", [0] * 12),
        ("within(segments(cu), t, causal)", [0] * 9),
        ("within(segments(t), segments(cu), causal)", [0, 7, 5, 12]),
    ],
)
def test_tensors_of_another_shape_are_refused(backend: str, text: str, values: Any) -> None:
    given = {"t": torch.tensor(values, dtype=torch.int64), "cu": torch.tensor([0, 12])}
    q, k = torch.randn(2, 1, 9, 16), torch.randn(2, 1, 12, 16)
    wanted = {name: given[name] for name in free_names(parse(text))}
    with pytest.raises(ArgumentError, match="^E060"):
        spattn.attention(q, k, k, text, backend=backend, **wanted)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_as_many_ids_as_keys_are_ids_though_they_ascend_like_lengths(backend: str) -> None:
    ids, q = torch.tensor([0, 2, 4, 4]), torch.randn(1, 1, 4, 16)
    _, lse = spattn.attention(q * 0, q, q, "documents(ids)", backend=backend, return_lse=True, ids=ids)
    torch.testing.assert_close(lse.exp(), torch.tensor([[[1.0, 1.0, 2.0, 2.0]]]))
    _, lse = spattn.attention(q * 0, q, q, "documents(segments(cu))", backend=backend, return_lse=True, cu=ids)
    torch.testing.assert_close(lse.exp(), torch.tensor([[[2.0, 2.0, 2.0, 2.0]]]))


def test_every_integer_type_holds_ids() -> None:
    for dtype in (torch.bool, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64):
        ids = (torch.arange(40) // 20).to(dtype)
        check("documents(ids)", drawn(40, 40, heads=(1, 1), tensors={"ids": ids}))
        check("within(q_ids, ids, causal)", drawn(40, 40, heads=(1, 1), tensors={"ids": ids, "q_ids": ids}))
