"""`AttentionConfig`: what it reads, what it refuses and how, what layers get."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spattn
from spattn.config import AttentionConfig
from spattn.errors import BindError, ConfigError, PatternError, UnsupportedError
from tests.strategies import patterns

DATA = {"pattern": "causal & last(w)", "layers": {0: "causal", "1:3": "sink(w) & causal"}, "bind": {"w": 8}}
MADE = AttentionConfig("causal & last(w)", (("0", "causal"), ("1:3", "sink(w) & causal")), (("w", 8),))


def refused(value: Any, code: str, path: tuple[str, ...], num_layers: int | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        AttentionConfig.of(value, num_layers)
    assert (caught.value.code, caught.value.path) == (code, path)
    return str(caught.value)


class Dumped:
    """As pydantic's models are."""

    def model_dump(self) -> dict[str, Any]:
        return DATA


@dataclass
class Structured:
    """As Hydra's structured configs are."""

    pattern: str
    tf32: bool


@pytest.mark.parametrize("value", [DATA, UserDict(DATA), Dumped(), SimpleNamespace(to_dict=lambda: DATA), MADE])
def test_containers(value: Any) -> None:
    assert AttentionConfig.of(value) == MADE
    assert AttentionConfig.of({"hidden_size": 64, "spattn": value if value is not MADE else DATA}) == MADE


def test_other_forms() -> None:
    assert AttentionConfig.of("causal") == AttentionConfig.of(spattn.parse("causal")) == AttentionConfig("causal")
    assert AttentionConfig.of(spattn.parse("last(8)").to_dict()) == AttentionConfig("last(8)")
    nothing = dict.fromkeys(("layers", "bind", "score", "backend", "tf32", "num_layers"))
    assert AttentionConfig.of({"pattern": "causal", **nothing}) == AttentionConfig("causal")
    assert AttentionConfig.of(Structured("causal", True)) == AttentionConfig("causal", tf32=True)
    model = {"spattn": "causal", "num_hidden_layers": 4}
    assert AttentionConfig.of(SimpleNamespace(to_dict=lambda: model)) == AttentionConfig("causal", num_layers=4)


def test_models_of_libraries() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", pattern=(str, "causal"), bind=(dict[str, int], {}))
    assert AttentionConfig.of(model()) == AttentionConfig("causal")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(num_hidden_layers=4, spattn={"pattern": "last(w)", "bind": {"w": 4}})
    assert AttentionConfig.of(config) == AttentionConfig("last(w)", bind=(("w", 4),), num_layers=4)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([0, 7], 'pattern is the list [0, 7], and a text is needed\n  hint: a set is part of a pattern: pattern: "col'),
        (None, "pattern is null, and a text is needed\n  hint: YAML reads ~, null and nothing"),
        (True, "pattern is true, and a text is needed\n  hint: YAML reads on, off, yes and no"),
        ({"local": 3}, 'pattern is a mapping, and a text is needed\n  hint: YAML reads ": "'),
        (90, "pattern is the number 90, and a text is needed\n  hint: quote the text, as in pattern"),
        (b"causal", "pattern is a bytes"),
    ],
)
def test_what_yaml_makes_of_text_without_quotes(value: Any, says: str) -> None:
    assert says in refused({"pattern": value}, "E071", ("pattern",))
    assert says.replace("pattern is", "layers.0 is").split("\n")[0] in refused(
        {"pattern": "full", "layers": {"0": value}}, "E071", ("layers", "0")
    )
    refused({"spattn": {"pattern": value}}, "E071", ("spattn", "pattern"))


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        ({"patern": "causal"}, ("patern",), "did you mean 'pattern'?"),
        ({"pattern": "causal", "causal": 4}, ("causal",), "keys are pattern, layers"),
        ({"pattern": "causal", True: 4}, ("True",), "there is no key True"),
        ({"bind": {}}, (), "no pattern"),
        (7, (), "a config is a int"),
        ({"pattern": "last(w)", "bind": {"w": "8"}}, ("bind", "w"), "without quotes"),
        ({"pattern": "last(w)", "bind": {"w": True}}, ("bind", "w"), "no number"),
        ({"pattern": "last(window)", "bind": {"windw": 8}}, ("bind", "windw"), "did you mean 'window'?"),
        ({"pattern": "last(w)", "bind": {"w": float("inf")}}, ("bind", "w"), "no number"),
        ({"pattern": "causal", "bind": [8]}, ("bind",), "names are needed"),
        ({"pattern": "causal", "layers": {"first": "full"}}, ("layers", "first"), "'first', which is no layer"),
        ({"pattern": "causal", "layers": {True: "full"}}, ("layers", "True"), "True, which is no layer"),
        ({"pattern": "causal", "tf32": "no"}, ("tf32",), "true or false"),
        ({"pattern": "causal", "backend": False}, ("backend",), "a backend's name"),
        ({"pattern": "causal", "num_layers": 0}, ("num_layers",), "how many layers"),
        ({"pattern": "causal", "spattn": 2}, ("spattn",), "of version 2"),
        ({"spattn": {"patern": "causal"}}, ("spattn", "patern"), "did you mean"),
    ],
)
def test_refusals(value: Any, path: tuple[str, ...], says: str) -> None:
    assert says in refused(value, "E070", path)


def test_layers_that_are_not_there() -> None:
    for key in (4, "-5", "2:5", "4:"):
        value = {"pattern": "causal", "layers": {key: "full"}}
        assert "layers 0 .. 3" in refused(value, "E072", ("layers", str(key)), 4)
        assert AttentionConfig.of(value, 9).num_layers == 9
    for pair in (("-1", "3"), ("0:2", "1:3")):
        both = {"pattern": "causal", "layers": dict.fromkeys(pair, "full")}
        assert "both name layer" in refused(both, "E072", ("layers", pair[1]), 4)
    refused({"pattern": "causal", "layers": {0: "full", "0": "causal"}}, "E072", ("layers", "0"))
    assert "5 layers, and 6" in refused({"pattern": "causal", "num_layers": 5}, "E072", ("num_layers",), 6)
    for config, layer in ((MADE, 4), (AttentionConfig("causal", num_layers=4), 4), (MADE, -1)):
        with pytest.raises(ConfigError):
            config.text_of(layer)


@given(st.lists(st.sampled_from(["0", "2", "-1", "-3", "1:4", ":2", "3:", "::2"]), unique=True, max_size=3), st.data())
@settings(max_examples=150)
def test_a_layer_gets_what_names_it(keys: list[str], data: st.DataObject) -> None:
    num_layers = data.draw(st.integers(4, 6))
    texts = {key: f"last({i + 1})" for i, key in enumerate(keys)}
    numbers, ranges = ([key for key in keys if (":" in key) == ranged] for ranged in (False, True))
    layers = range(num_layers)
    slices = {key: layers[slice(*(int(part) if part else None for part in key.split(":")))] for key in ranges}
    clash = len({layers[int(key)] for key in numbers}) < len(numbers) or any(
        set(slices[a]) & set(slices[b]) for a in ranges for b in ranges if a != b
    )
    if clash:
        with pytest.raises(ConfigError, match="both name layer"):
            AttentionConfig.of({"pattern": "causal", "layers": texts}, num_layers)
        return
    config = AttentionConfig.of({"pattern": "causal", "layers": texts}, num_layers)
    for layer in layers:
        named = [key for key in numbers if layers[int(key)] == layer] or [k for k in ranges if layer in slices[k]]
        assert config.text_of(layer) == (texts[named[0]] if named else "causal")
    assert AttentionConfig.of(config.to_dict()) == config


@given(patterns(depth=1), st.booleans(), st.sampled_from([None, "softcap(c)"]))
@settings(max_examples=40)
def test_round_trip(text: str, tf32: bool, score: str | None) -> None:
    bind = () if score is None else (("c", 30.0),)
    config = AttentionConfig(str(text), (("0", "causal"),), bind, score, "torch", tf32, 3)
    assert AttentionConfig.of(config.to_dict()) == config
    assert AttentionConfig.of(AttentionConfig(str(text)).to_dict()) == AttentionConfig(str(text))


def test_attention_of_layers() -> None:
    config = AttentionConfig.of({**DATA, "score": "softcap(c)", "bind": {"w": 8, "c": 30.0}, "backend": "torch"}, 6)
    found = [config.attention(layer) for layer in range(6)]
    last = "causal & last(8)"
    assert [str(one.pattern) for one in found] == ["causal", "sink(8) & causal", "sink(8) & causal", last, last, last]
    assert found[1] is found[2]
    assert found[3] is found[5] is config.attention(4)
    assert {(one.score, one.backend, one.tf32) for one in found} == {("softcap(30)", "torch", False)}
    assert config.attention(0, score="softcap(5)").score == "softcap(5)"
    by_layer = AttentionConfig("layers([0]) & causal | last(4)", tf32=True)
    assert by_layer.attention(0).pattern.equals("causal")
    assert by_layer.attention(1).pattern.equals("last(4)")
    assert by_layer.attention().tf32


def test_errors_of_patterns() -> None:
    config = AttentionConfig("causall", (("0", "last(w"),), (("w", 8),), "softcapp(3)", "tritn")
    assert [(path, error.code) for path, error in config.problems()] == [
        (("pattern",), "E012"),
        (("layers", "0"), "E002"),
        (("score",), next(error.code for path, error in config.problems() if path == ("score",))),
        (("backend",), "E041"),
    ]
    with pytest.raises(PatternError):
        config.attention(1)
    with pytest.raises(UnsupportedError):
        AttentionConfig("causal", backend="tritn").attention()
    with pytest.raises(BindError):
        AttentionConfig("last(w)", bind=(("w", 1.5),)).attention()
    with pytest.raises(BindError):
        AttentionConfig.of({"pattern": "last(w)", "bind": {"w": 10**400}}).attention()
    assert list(MADE.problems()) == []
