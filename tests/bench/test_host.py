"""Host times are taken on any machine, and no kernel runs."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from spattn.bench import host  # noqa: E402


@pytest.mark.parametrize("pattern", ["last(1024)", "local(256) | global([t])"])
def test_host_times(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "CALLS", 3)
    device = torch.device("cpu")
    tensors = {name: torch.tensor(one) for name, one in host.PATTERNS[pattern].items()}
    with host.without_launches(device):
        found = host.Host(pattern, tensors, device).microseconds()
    assert len(found) == len(host.COLUMNS)
    assert all(one > 0 for one in found)
