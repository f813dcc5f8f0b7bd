"""Masks as cells, beside the oracle; and the pictures that are drawn of them."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from spattn import oracle
from spattn.analysis import cells as module
from spattn.analysis.cells import Cells, cells
from spattn.analysis.samples import sample_tensors
from spattn.analysis.svg import svg_picture
from spattn.analysis.text_picture import ASCII, BLOCKS, shades, text_picture
from spattn.pattern import parse

PATTERNS = (
    "full",
    "none",
    "local(70)",
    "last(9, dilation=16) | global([0, 100, -1])",
    "strided(32) & causal",
    "columns([::50]) - rows([::64])",
    "chunk(100) & causal | tail(5)",
    "documents(ids)",
    "within(ids, last(20))",
    "random(2, block=32)",
    "blocks(table, size=32) & causal",
    "neighborhood(grid=[20, 20], kernel=5)",
    "heads([1]) & causal",
)


def _sums(mask, rows, columns):
    return np.add.reduceat(np.add.reduceat(mask.astype(int), rows[:-1], 0), columns[:-1], 1)


def _oracle(pattern, q_len, kv_len, head):
    parsed = parse(pattern)
    tensors = sample_tensors(parsed.condition, parsed.free_names, kv_len)
    mask = oracle.mask(parsed.syntax, q_len, kv_len, tensors=tensors, num_heads=head + 1)
    return mask if mask.ndim == 2 else mask[0, head]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("q_len", "kv_len"), [(300, 400), (37, 400), (10, 7)])
def test_small_masks_are_exact(pattern, q_len, kv_len):
    found = cells(parse(pattern), q_len, kv_len, 20, head=1)
    mask = _oracle(pattern, q_len, kv_len, 1)
    allowed = _sums(mask, found.rows, found.columns)
    size = np.diff(found.rows)[:, None] * np.diff(found.columns)
    np.testing.assert_array_equal(found.fraction, allowed / size)
    np.testing.assert_array_equal(found.full, allowed == size)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_sampled_cells_claim_no_pair_that_is_not_there(pattern, monkeypatch):
    monkeypatch.setattr(module, "MAX_EXACT", 0)
    found = cells(parse(pattern), 400, 400, 20, head=1)
    allowed = _sums(_oracle(pattern, 400, 400, 1), found.rows, found.columns)
    assert not (found.touched & (allowed == 0)).any()
    assert not (~found.full & (allowed == 400)).any()


FRAMES = (
    {"k_offset": 130},
    {"k_offset": 100, "num_keys": 170},
    {"q_offset": 20, "num_keys": 250},
    {"q_offset": 350, "k_offset": 350, "num_keys": 50},
    {"q_offset": -40, "k_offset": 7, "num_keys": 90},
)


@pytest.mark.parametrize("most", [0, module.MAX_EXACT])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("at", FRAMES)
def test_some_keys_of_a_whole(pattern, at, most, monkeypatch):
    monkeypatch.setattr(module, "MAX_EXACT", most)
    found = cells(parse(pattern), 90, 400, 20, head=1, **at)
    first, count = at.get("k_offset", 0), at.get("num_keys", 400 - at.get("k_offset", 0))
    assert (found.columns[0], found.columns[-1]) == (first, first + count)
    assert (found.rows[0], found.rows[-1]) == (0, 90)
    parsed = parse(pattern)
    tensors = sample_tensors(parsed.condition, parsed.free_names, 400)
    whole = {"q_offset": at.get("q_offset"), "num_heads": 2, "tensors": tensors}
    mask = np.broadcast_to(oracle.mask(parsed.syntax, 90, 400, **whole), (1, 2, 90, 400))[0, 1]
    allowed = _sums(mask[:, first : first + count], found.rows, found.columns - first)
    size = np.diff(found.rows)[:, None] * np.diff(found.columns)
    if found.how == "exact":
        np.testing.assert_array_equal(found.fraction, allowed / size)
        np.testing.assert_array_equal(found.full, allowed == size)
    assert not (found.touched & (allowed == 0)).any()
    assert not (~found.full & (allowed == size)).any()


def test_where_some_keys_stand_is_said():
    found = cells(parse("causal"), 3, 10, 64, q_offset=5, k_offset=4, num_keys=3)
    assert list(text_picture(found, ASCII)) == [
        "   4",
        "0 |####  |",
        "  |######|",
        "  |######|",
        "# allowed; a cell is one pair",
        "keys 4 .. 6 of 10",
        "the first query at 5",
    ]
    assert "keys 4 .. 6 of 10" in svg_picture(found, "causal")
    assert not cells(parse("causal"), 3, 10, 64).placement


def test_no_key_is_given():
    found = cells(parse("causal"), 3, 10, 64, k_offset=10)
    assert found.fraction.shape == (3, 0)
    assert "keys none of 10" in "\n".join(text_picture(found, ASCII))
    svg_picture(found, "causal")


@pytest.mark.parametrize("pattern", ["local(70)", "last(5) | global([0, 133, -1])", "columns([::50])", "rows([::50])"])
def test_counted_lines_see_thin_structures(pattern, monkeypatch):
    monkeypatch.setattr(module, "MAX_EXACT", 0)
    found = cells(parse(pattern), 400, 400, 20)
    assert found.how == "lines"
    np.testing.assert_array_equal(found.touched, _sums(_oracle(pattern, 400, 400, 0), found.rows, found.columns) > 0)


@pytest.mark.parametrize("pattern", ["local(256) | global([0, 7])", "columns([::512]) & causal", "bigbird"])
def test_a_billion_tokens(pattern):
    found = cells(parse(pattern), 10**9, 10**9, 64)
    assert found.how != "exact"
    assert found.touched.diagonal().all()


def _picture(pattern: str, q_len: int, kv_len: int, most: int = 64) -> Cells:
    return cells(parse(pattern), q_len, kv_len, most)


def test_text():
    assert list(text_picture(_picture("causal", 3, 5), ASCII)) == [
        "   0",
        "0 |######    |",
        "  |########  |",
        "  |##########|",
        "# allowed; a cell is one pair",
    ]


def test_shades_and_legend():
    found = _picture("causal & last(8)", 64, 64, 8)
    assert shades(found)[1][:3] == [2, 2, 0]
    *_, legend = text_picture(found, BLOCKS)
    assert legend == "█ all pairs, ░▒▓ some, blank none; a cell is 8 queries x 8 keys"


def test_what_is_not_certain_is_said(monkeypatch):
    monkeypatch.setattr(module, "MAX_EXACT", 0)
    text = "\n".join(text_picture(_picture("documents(ids)", 100, 100, 10)))
    assert "sampled" in text
    assert "examples" in text


def test_narrow_terminals_get_one_character_a_cell():
    lines = list(text_picture(_picture("full", 40, 40), ASCII, width=60))
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize("pattern", ["causal & chunk(8)", "strided(3)", "none"])
def test_svg_paints_what_is_allowed(pattern):
    found = _picture(pattern, 30, 30)
    root = ElementTree.fromstring(svg_picture(found, f"{pattern} <&>"))
    painted = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("fill") != "none"]
    area = sum(float(r.get("width", 0)) * float(r.get("height", 0)) for r in painted)
    assert area == pytest.approx(found.touched.sum() * (512 / 30) ** 2, rel=2e-3)
    assert svg_picture(found, pattern) == svg_picture(found, pattern)
