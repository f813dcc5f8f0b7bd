"""What is made of tensors is kept for the same tensors, and keeps none of them."""

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")
from spattn.backends.triton.memory import Memory  # noqa: E402  after torch is known to be here


def test_the_same_tensor_is_made_of_once_and_a_changed_one_again() -> None:
    memory, made = Memory(4), []
    source = torch.arange(8)
    for _ in range(3):
        memory.get("key", [source], lambda: made.append(1) or source + 1)
    assert len(made) == 1
    source[0] = 5
    assert memory.get("key", [source], lambda: made.append(1) or source + 1)[0] == 6
    assert len(made) == 2


def remember(memory: Memory, make) -> tuple[int, weakref.ref]:
    """How many values are kept while a source lives, and the source, which then is let go."""
    source = torch.arange(8)
    memory.get("key", [source], lambda: make(source))
    return len(memory), weakref.ref(source)


def test_what_was_made_goes_with_its_tensor() -> None:
    memory = Memory(4)
    kept, _ = remember(memory, lambda t: (t * 2, 0))
    assert kept == 1
    gc.collect()
    assert len(memory) == 0


@pytest.mark.parametrize("view", [lambda t: t, lambda t: (t.reshape(2, 4), 3), lambda t: {"a": t[1:]}])
def test_a_tensor_of_the_user_is_not_kept_alive(view) -> None:
    memory = Memory(4)
    kept, source = remember(memory, view)
    assert kept == 0
    gc.collect()
    assert source() is None


def test_only_the_last_used_are_kept() -> None:
    memory = Memory(2)
    for key in "abc":
        memory.get(key, [], lambda: 1)
    assert len(memory) == 2
