"""The shapes of the language, its limits, and that no text gets past them."""

from __future__ import annotations

import subprocess
import sys
import time

import lark
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spattn.errors import SpattnError
from spattn.frontend.atoms import ATOMS
from spattn.frontend.meaning import disjuncts, free_names, meaning
from spattn.frontend.parser import parse
from spattn.frontend.prelude import words
from spattn.frontend.syntax import Atom, Intersection, Union


def test_positions_and_keywords_give_the_same_node():
    assert parse("local(128)") == parse("local(w=128)")
    assert parse("random(2, seed=1, block=8)") == parse("random(block=8, n=2, seed=1)")


def test_words_are_the_operators():
    assert parse("not causal and full or none") == parse("~causal & full | none")
    assert parse("not causal - full") == parse("(~causal) - full")


def test_chains_are_flat():
    assert isinstance(parse("causal | full | none"), Union)
    assert len(parse("causal | full | none").operands) == 3
    assert isinstance(parse("causal & full & none"), Intersection)
    assert disjuncts(parse("causal | (full | none) & full")) == parse("causal | (full | none) & full").operands
    assert len(disjuncts(parse("(causal | full) | none"))) == 3


def test_names_are_bound():
    assert parse("global([cls, -1])", {"cls": np.int64(7)}) == parse("global([7, -1])")
    assert parse("columns([a:b:c])", {"a": 1, "b": 9, "c": 2}) == parse("columns([1:9:2])")
    assert parse("where(q - k < w)", {"w": 3}) == parse("where(q - k < 3)")


def test_free_names_have_roles():
    text = "global([cls]) & documents(ids) | blocks(t, 8) & valid(n) | where(x[k] > s)"
    roles = {"cls": "tokens", "ids": "documents", "t": "blocks", "n": "lengths", "x": "tensor", "s": "tensor"}
    assert free_names(parse(text)) == roles
    assert free_names(parse("listed_blocks(t, 8)")) == {"t": "block lists"}
    assert free_names(parse("vertical_slash(c, s)")) == {"c": "tokens", "s": "tokens"}
    assert free_names(parse("within(ids, columns(t))")) == {"ids": "documents", "t": "tokens"}
    two = free_names(parse("within(x, segments(y), causal) | packed_causal(segments(z))"))
    assert two == {"x": "query documents", "y": "segments", "z": "segments"}
    assert free_names(parse("documents(segments(cu), segments(cu))")) == {"cu": "segments"}


def test_layers_fold():
    assert parse("layers([0, 2:8:3])", layer=5) == Atom("full")
    assert parse("layers([0, 2:8:3])", layer=4) == Atom("none")
    assert str(parse("layers([0]) & causal")) == "layers([0]) & causal"
    with pytest.raises(SpattnError, match="needs the number of a layer"):
        meaning(parse("layers([0])"))


@pytest.mark.parametrize("text", ["local(0)", "causal & ~causal", "random(3)", "local(1)\r\n\t| full", "\ufefffull"])
def test_odd_but_right(text):
    parse(text)


@pytest.mark.parametrize("name", [*ATOMS, *words()])
def test_each_name_is_documented(name):
    doc = ATOMS[name].doc if name in ATOMS else words()[name].doc
    assert doc.endswith(".")


def test_published_patterns_are_words():
    published = "longformer bigbird mistral gpt_oss llama4_chunked sparse_transformer_strided sparse_transformer_fixed"
    published += " streaming_llm a_shape tri_shape vertical_slash prefix_lm"
    assert set(published.split()) <= set(words())


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("(" * 50_000, "E092"),
        ("~" * 50_000, "E092"),
        ("not " * 50_000, "E092"),
        ("within(ids, " * 50_000, "E092"),
        ("within(ids, " * 65 + "full" + ")" * 65, "E092"),
        ("~(" * 40 + "full" + ")" * 40 + " - full" * 65, "E092"),
        ("full" + " - full" * 65, "E092"),
        ("where(q" + " + 1" * 70 + ")", "E092"),
        ("where(" + "-" * 50_000, "E092"),
        ("full | " * 10_000, "E093"),
        ("full | " * 512 + "full", "E093"),
        ("columns([" + "0," * 5000 + "0])", "E093"),
        (" " * 20_000 + "full", "E091"),
        ("local(" + "9" * 5000 + ")", "E090"),
    ],
    ids=lambda value: value if value.startswith("E09") else value[:12],
)
def test_limits_hold_and_cost_little(text, code):
    parse("causal")
    start = time.perf_counter()
    with pytest.raises(SpattnError) as caught:
        parse(text)
    assert caught.value.code == code
    if len(text) > 20_000:
        assert time.perf_counter() - start < 0.05
    assert len(str(caught.value)) < 2000


def test_the_largest_patterns_pass():
    assert len(parse(" | ".join(["full"] * 512)).operands) == 512
    deep = "~(" * 32 + "causal" + ")" * 32
    assert parse(deep) == parse(str(parse(deep)))
    nested = "blockwise(1, " * 63 + "causal" + ")" * 63
    meaning(parse(nested))


def test_blocks_of_blocks_do_not_pile_up():
    text = "blockwise(3, ~" * 30 + " | ".join(f"local({i})" for i in range(400)) + ")" * 30
    start = time.perf_counter()
    meaning(parse(text))
    assert time.perf_counter() - start < 5
    assert meaning(parse("blockwise(2, blockwise(3, last(2)))")) == meaning(parse("blockwise(6, last(2))"))


_HOSTILE = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [*"()[]|&~-,=:<>+*%/#!^$'\"{}\\\n\t\r\0. ", "local", "where", "within", "global", "not", "and", "inf", "q"]
            + ["k", "128", "-1", "9" * 40, "1.5", "causal", "w=", "//", "{{", "}}", '"""', "bigbird", "\u200b", "t[k]"]
        ),
        max_size=24,
    ).map("".join),
)


@given(_HOSTILE)
def test_a_text_is_a_pattern_or_a_spattn_error(text):
    try:
        node = parse(text)
    except SpattnError as error:
        refusal, drawn = error.to_dict(), str(error)
    else:
        assert parse(str(node)) == node
        return
    assert drawn.startswith(f"{refusal['code']}: {refusal['message']}")
    assert "\x1b" not in drawn


def test_import_is_quick_and_pulls_in_nothing_heavy():
    code = (
        "import time, sys, lark; t = time.perf_counter(); import spattn.frontend.parser; "
        "d = time.perf_counter() - t; assert not {'torch', 'sympy', 'islpy', 'jinja2'} & set(sys.modules); print(d)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 1.0


def test_trees_of_lark_1_2_have_no_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "~(causal & last(8)) - sink(2) | where(abs(-(q + k)) % 2 == 0 or t[q] == 1) | global([:4, ::8])"
    want = parse(text)
    monkeypatch.delattr(lark.Tree, "__match_args__", raising=False)
    assert parse(text) == want
