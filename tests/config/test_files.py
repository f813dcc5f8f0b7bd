"""Configs in files: what is read, and the line and column of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spattn.config import AttentionConfig
from spattn.config.document import MAX_CHARACTERS, Document
from spattn.errors import ConfigError, MissingDependencyError
from spattn.frontend.syntax import Node
from tests.strategies import patterns

YAML = """\
model: {layers: 4}
spattn:
  pattern: >-
    causal & (last(w)
      | sink(4))   # no comment: a part of the text would it be
  layers:
    0: 'full'
    "1:3": "causal | none"
    -1: |
      causal &
      last(3)
  bind: {w: 1024}
"""
TOML = '''\
title = "pattern = 'full'"
note = """
[spattn]
pattern = "full"
"""
[spattn]
bind = { w = 1024 }  # { pattern = "full" }
pattern = "causal & last(w)"
[spattn.layers]
0 = \'full\'
"1:3" = """
causal
  | none"""
[other]
pattern = "full"
'''


def places(form: str, text: str) -> None:
    """The characters of each text, of a long one some, are found where they stand."""
    document = Document(text, form)
    lines = document.text.split("\n")
    for path, value in AttentionConfig.of(document.value).texts():
        for position in range(0, len(value), 1 + len(value) // 40 * 10):
            character = value[position]
            line, column = document.place(("spattn", *path), value, position)
            if not character.isspace():
                assert lines[line - 1][column - 1] == character
        line, column = document.place(("spattn", *path), value)
        assert lines[line - 1][column - 1 :].startswith(value.split()[0])


def test_places_in_yaml() -> None:
    pytest.importorskip("yaml")
    text = YAML.replace("   # no comment: a part of the text would it be", "")
    places("yaml", text)
    places("yaml", "\ufeff" + text.replace("\n", "\r\n"))
    document = Document(text, "yaml")
    assert document.place(("spattn", "layers", "0")) == (7, 8)
    assert document.place(("spattn", "layers", "7")) == document.place(("spattn", "layers")) == (7, 5)
    assert document.place(()) == (1, 1)


@given(patterns(depth=1), st.sampled_from([None, "'", '"', "|", ">"]), st.integers(20, 90))
@settings(max_examples=25)
def test_places_in_drawn_yaml(pattern: Node, style: str | None, width: int) -> None:
    yaml = pytest.importorskip("yaml")
    data = {"a": 1, "spattn": {"layers": {"0": "causal & (local(3) |\n  sink(3))"}, "pattern": str(pattern)}}
    places("yaml", yaml.safe_dump(data, default_style=style, width=width))


def test_places_in_toml() -> None:
    places("toml", TOML)
    inline = """spattn = { layers = { 0 = 'full', "1" = "last(3)" }, pattern = "causal" }"""
    places("toml", inline)
    places("toml", "spattn.layers.0 = 'full'\nspattn . pattern = 'causal'")
    assert Document(TOML, "toml").place(("spattn", "layers", "0")) == (10, 5)
    assert Document(inline, "toml").place(("spattn", "layers", "9"))[1] == inline.index("{ 0") + 1


@given(st.sampled_from([None, 0, 2]), st.booleans())
def test_places_in_json(indent: int | None, last: bool) -> None:
    section = {"layers": {"0": "full", "1:3": "causal | none"}, "bind": {}, "pattern": "causal & last(9)"}
    whole = {"a": [1, {"pattern": "x"}], "spattn": section}
    places("json", json.dumps(dict(reversed(whole.items())) if last else whole, indent=indent))


def test_escapes_fall_back_to_the_beginning() -> None:
    text = r'{"spattn": "caus\u0061l | snk(3)"}'
    assert Document(text, "json").place(("spattn",), "causal | snk(3)", 9) == (1, 13)


def test_files(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    data = {"pattern": "last(w)", "layers": {"0": "causal"}, "bind": {"w": 8}}
    toml = 'pattern = "last(w)"\nlayers = {0 = "causal"}\nbind.w = 8'
    for suffix, text in (("json", json.dumps(data)), ("toml", toml), ("yml", json.dumps(data))):
        file = tmp_path / f"config.{suffix}"
        file.write_text(text)
        assert AttentionConfig.from_file(file) == AttentionConfig.of(data)
        assert AttentionConfig.from_text(text, suffix.replace("yml", "yaml"), 4) == AttentionConfig.of(data, 4)
    with pytest.raises(ConfigError, match=r"suffixes are \.yaml"):
        AttentionConfig.from_file(tmp_path / "config.ini")
    with pytest.raises(ConfigError, match="no form of configs"):
        AttentionConfig.from_text("", "ini")


@pytest.mark.parametrize(
    ("form", "text", "place"),
    [
        ("yaml", "a: 1\npattern: local(w: 128)", (2, 17)),
        ("yaml", "pattern: @causal", (1, 10)),
        ("yaml", "pattern: !causal", (1, 10)),
        ("toml", "a = 1\npattern = causal", (2, 11)),
        ("json", '{"pattern": causal}', (1, 13)),
        ("json", "[" * 100_000, (None, None)),
        ("json", "9" * 5000, (None, None)),
        ("toml", "a = " + "9" * 5000, (None, None)),
        ("yaml", "a: " + "9" * 5000, (None, None)),
        ("json", " " * (MAX_CHARACTERS + 1), (None, None)),
    ],
)
def test_what_is_no_file_of_its_form(form: str, text: str, place: tuple[int | None, int | None]) -> None:
    if form == "yaml":
        pytest.importorskip("yaml")
    with pytest.raises(ConfigError) as caught:
        Document(text, form)
    assert (caught.value.code, caught.value.line, caught.value.column) == ("E070", *place)


@pytest.mark.parametrize("written", ["[0, 7]", "~", "null", "", "on", "off", "yes", "no", "1:30", "0.5", "\n  last: 3"])
def test_yaml_without_quotes(written: str) -> None:
    pytest.importorskip("yaml")
    with pytest.raises(ConfigError) as caught:
        AttentionConfig.from_text(f"pattern: {written}")
    assert (caught.value.code, caught.value.path) == ("E071", ("pattern",))
    assert AttentionConfig.from_text("pattern: ~causal & local(3)").pattern == "~causal & local(3)"


def test_without_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(MissingDependencyError, match="PyYAML"):
        AttentionConfig.from_text("pattern: causal")
    assert AttentionConfig.from_text('{"pattern": "causal"}', "json") == AttentionConfig("causal")
