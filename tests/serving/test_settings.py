"""Patterns of layers, as configs of models say them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import spattn
from spattn.config import AttentionConfig
from spattn.errors import ArgumentError, NotDecodableError, PatternError, UnsupportedError
from spattn.serving.settings import VARIABLE, attention_of, cache_window, check_window, config_of


def of(spattn_of_config: Any) -> AttentionConfig:
    found = config_of(SimpleNamespace(spattn=spattn_of_config))
    assert found is not None
    return found


def test_a_config_is_a_pattern_or_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert config_of(SimpleNamespace()) is None
    assert of("causal") == AttentionConfig("causal")
    parts = {"pattern": "last(w)", "bind": {"w": 8}, "layers": {"0": "causal", -1: "full"}, "backend": "torch"}
    assert of(parts) == AttentionConfig("last(w)", (("-1", "full"), ("0", "causal")), (("w", 8),), backend="torch")
    for wrong in (
        7,
        {"patern": "causal"},
        {"bind": {}},
        {"pattern": None},
        {"pattern": "causal", "layers": {"first": "full"}},
    ):
        with pytest.raises(ArgumentError, match="config.spattn"):
            of(wrong)
    monkeypatch.setenv(VARIABLE, "sink(1)")
    assert of("causal") == AttentionConfig("sink(1)")
    assert config_of(SimpleNamespace()) == AttentionConfig("sink(1)")


def test_each_layer_has_its_pattern() -> None:
    config = of({"pattern": "last(w) & causal", "bind": {"w": 8}, "layers": {"0": "causal", "-1": "sink(2) & causal"}})
    found = [attention_of(config, layer, 4) for layer in range(4)]
    assert [str(one.pattern) for one in found] == ["causal", *["last(8) & causal"] * 2, "sink(2) & causal"]
    assert found[1] is found[2] is attention_of(config, 2, 4)
    by_layer = of("layers([0]) & causal | last(4)")
    assert attention_of(by_layer, 0, 2).pattern.equals("causal | last(4)")
    assert attention_of(by_layer, 1, 2).pattern.equals("last(4)")


def test_patterns_that_no_engine_can_serve() -> None:
    with pytest.raises(UnsupportedError, match="reads ids"):
        attention_of(of("within(ids, causal)"), 0, 1)
    with pytest.raises(PatternError):
        attention_of(of("causall"), 0, 1)
    with pytest.raises(ArgumentError, match="model has layers 0 .. 1"):
        attention_of(of({"pattern": "causal", "layers": {2: "full"}}), 0, 2)
    with pytest.raises(UnsupportedError, match="has the score"):
        attention_of(of({"pattern": "causal", "score": "softcap(30)"}), 0, 1)
    with pytest.raises(NotDecodableError):
        check_window("full", None)


@pytest.mark.parametrize(
    ("pattern", "window"),
    [
        ("causal", None),
        ("causal & (last(16) | sink(4))", None),
        ("causal & last(16)", 16),
        ("last(4, dilation=3)", 10),
        ("chunk(8) & causal", 8),
    ],
)
def test_the_window_of_a_cache_holds_what_the_pattern_needs(pattern: str, window: int | None) -> None:
    assert cache_window(pattern) == window
    check_window(pattern, None)
    mask = spattn.parse(pattern).mask(64, 64).numpy()
    oldest = max(int(q - np.flatnonzero(mask[q]).min()) for q in range(64)) + 1
    if window is None:
        with pytest.raises(UnsupportedError, match="keeps keys for ever"):
            check_window(pattern, 32)
        return
    assert oldest <= window
    check_window(pattern, window)
    with pytest.raises(UnsupportedError, match=f"the last {window - 1} keys"):
        check_window(pattern, window - 1)
