"""FlexAttention's block mask without its compiler: the one that `create_block_mask` makes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from spattn.bench.case import Case  # noqa: E402
from spattn.bench.peers import flex  # noqa: E402
from spattn.bench.workloads.catalogue import WORKLOADS  # noqa: E402


def rows(counts: torch.Tensor, places: torch.Tensor) -> list[list[int]]:
    pairs = zip(counts.flatten().tolist(), places.flatten(0, -2).tolist(), strict=True)
    return [sorted(row[:count]) for count, row in pairs]


@pytest.mark.parametrize("name", ["bigbird_16k_d64", "heads_local_strided_16k_d64", "example_16k_d64"])
def test_evaluated(name: str) -> None:
    length = 512
    case = Case(WORKLOADS[name].at(length), torch.device("cpu"), torch.float32)
    heads = case.workload.q_heads
    expected = flex.create_block_mask(case.mask, 1, heads, length, length, device="cpu")
    found = flex._evaluated(case)
    for kind in ("", "full_"):
        for side in ("kv", "q"):
            names = (f"{kind}{side}_num_blocks", f"{kind}{side}_indices")
            assert rows(*(getattr(found, n) for n in names)) == rows(*(getattr(expected, n) for n in names))
    assert (found.shape, found.BLOCK_SIZE) == (expected.shape, expected.BLOCK_SIZE)
    parts = (found.kv_indices, found.full_kv_indices, found.q_indices, found.full_q_indices)
    assert sum(part.nbytes for part in parts) == flex.table_bytes(case)


def test_a_mask_is_built_once_for_all_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Case] = []
    monkeypatch.setattr(flex, "_built", lambda case: made.append(case) or object())
    masks = flex.BlockMasks()
    one, other = (Case(WORKLOADS["odd_columns_16k_d128"], torch.device("cpu"), torch.float32) for _ in range(2))
    assert masks.of(one) is masks.of(one)
    masks.of(other)
    assert [id(case) for case in made] == [id(one), id(other)]
