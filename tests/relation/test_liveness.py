"""Liveness against brute force: every step of a decoder up to some length, pair by pair by the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, reject, settings
from hypothesis import strategies as st

from spattn import oracle
from spattn.errors import ArgumentError, MissingDependencyError, NotDecodableError, UnsupportedError
from spattn.expressions.algebra import conj, eq, symbols
from spattn.expressions.nodes import Sym
from spattn.frontend.meaning import free_names, meaning
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Intersection, Node
from spattn.pattern import Pattern
from spattn.relation import affine, decoding
from spattn.relation import liveness as room
from spattn.relation.liveness import Liveness, heads_of, liveness
from tests.strategies import patterns, tensors_for

N = 48
HEADS, BATCH = 3, 2
FAR = 1 << 29
"""By then whatever dies is dead: numbers are small."""
ANY = settings(max_examples=100, suppress_health_check=list(HealthCheck))
CAUSAL = parse("causal")


def live_of(text: str, **arguments: Any) -> Liveness:
    return Pattern.of(text).live(**arguments)


def decoded(node: Node) -> np.ndarray[Any, Any]:
    """[BATCH, HEADS, N, N]: row q as the call of its own step has it, which has q + 1 keys."""
    found = np.zeros((BATCH, HEADS, N, N), np.bool_)
    for q in range(N):
        found[..., q, : q + 1] = oracle.mask(node, 1, q + 1, num_heads=HEADS, batch_size=BATCH)[..., 0, :]
    return found


def lives(allowed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[t, k]: some row from t on has key k < t; rows are `[N, N]`."""
    later = np.flip(np.logical_or.accumulate(np.flip(allowed, 0), 0), 0)
    return later & np.tri(N, N, -1, dtype=np.bool_)


def computed(live: Liveness) -> np.ndarray[Any, Any]:
    found = np.zeros((N, N), np.bool_)
    for t in range(N):
        found[t, :t] = live.mask(t)
    return found


def read(formula: str, **env: Any) -> Any:
    """A formula as Python reads it."""
    names = {"min": np.minimum, "max": np.maximum, "true": True, "false": False}
    return eval(compile(formula, "formula", "eval"), {"__builtins__": {}}, {**names, **env})  # noqa: S307


def asked(question: Callable[[], Liveness]) -> Liveness:
    try:
        return question()
    except NotDecodableError:
        reject()


def each_causal(node: Node) -> Node:
    return Intersection((node, CAUSAL))


def meant(node: Node) -> Any:
    try:
        return meaning(node)
    except ValueError:
        reject()


@ANY
@given(patterns(depth=2, guards=False).map(each_causal))
def test_of_a_bounded_call_it_is_what_brute_force_finds(node: Node) -> None:
    condition = heads_of(meant(node), HEADS, None, None)
    if "batch_size" in symbols(condition) or "b" in symbols(condition):
        condition = conj(condition, eq(Sym("batch_size"), BATCH))
    live = asked(lambda: liveness(condition, N))
    rows = decoded(node).any((0, 1))
    if live.note:
        event("over the cap")
        assert live.kept_mask(N).all()
        return
    found, expected = computed(live), lives(rows)
    np.testing.assert_array_equal(found, expected)
    kept = liveness(condition).kept_mask(N)
    np.testing.assert_array_equal(live.kept_mask(N), kept)
    ages = np.subtract.outer(np.arange(N), np.arange(N))
    assert live.reach == max(ages[expected & ~kept], default=0)


@ANY
@given(patterns(depth=2, guards=False).map(each_causal), st.data())
def test_of_an_endless_call_each_live_key_has_a_query_and_dead_keys_have_none(node: Node, data: st.DataObject) -> None:
    condition = meant(node)
    live = asked(lambda: liveness(condition))
    found, expected = computed(live), lives(decoded(node).any((0, 1)))
    assert not (expected & ~found).any()
    if live.note:
        return
    t = data.draw(st.integers(1, N - 1))
    k = data.draw(st.integers(0, t - 1))
    later = live.why(k, t)
    assert (later is not None) == found[t, k]
    if later is not None:
        assert later.q >= t
        assert later.k == k
        assert later.q < 4096, "numbers are small: the oracle can look at the row"
        sizes = {"num_heads": later.num_heads, "batch_size": later.batch_size}
        row = oracle.mask(node, 1, later.q + 1, **sizes)
        row = np.broadcast_to(row, (later.batch_size, later.num_heads, 1, later.q + 1))
        assert row[later.batch, later.head, 0, k]
    for key, kept in enumerate(live.kept_mask(t)):
        assert (live.why(key, FAR) is not None) == kept


@ANY
@given(patterns(depth=2, guards=False).map(each_causal))
def test_dead_keys_stay_dead_and_others_lie_within_reach(node: Node) -> None:
    condition = meant(node)
    live = asked(lambda: liveness(condition))
    found, kept = computed(live), live.kept_mask(N)
    for t in range(1, N):
        assert not (found[t, : t - 1] & ~found[t - 1, : t - 1]).any()
        assert not (kept[:t] & ~found[t, :t]).any()
        if live.reach is not None:
            assert not (found[t, :t] & ~kept[:t])[: max(t - live.reach, 0)].any()


@ANY
@given(patterns(depth=2, guards=False).map(each_causal), st.integers(1, 9))
def test_formulas_say_what_masks_are_and_pages_have_live_keys(node: Node, size: int) -> None:
    condition = meant(node)
    live = asked(lambda: liveness(condition))
    pages = live.page_formula(size)
    for t in (1, 7, 20, N):
        held = [k for k in range(t) if read(live.formula(), t=t, k=k)]
        np.testing.assert_array_equal(np.flatnonzero(live.mask(t)), held)
        assert [k for k in range(t) if read(live.forever, k=k)] == np.flatnonzero(live.kept_mask(t)).tolist()
        needed = sorted({k // size for k in held})
        assert live.pages(t, size).tolist() == needed
        if pages is not None:
            assert [j for j in range(-(-t // size)) if read(pages, t=t, j=j)] == needed


@ANY
@given(patterns(depth=2).map(each_causal), st.data())
def test_whatever_tensors_hold_no_key_that_is_needed_is_dead(node: Node, data: st.DataObject) -> None:
    condition = meant(node)
    live = asked(lambda: liveness(condition))
    tensors = data.draw(tensors_for(node, N, N, BATCH, HEADS))
    try:
        mask = oracle.mask(node, N, N, num_heads=HEADS, batch_size=BATCH, tensors=tensors)
    except ValueError:
        reject()
    rows = np.broadcast_to(mask, (BATCH, HEADS, N, N)).any((0, 1))
    event(f"exact: {live.exact}, all: {live.forever == 'true'}")
    assert not (lives(rows) & ~computed(live)).any()


@ANY
@given(patterns(depth=2))
def test_what_is_refused_has_a_witness(node: Node) -> None:
    condition = meant(node)
    try:
        liveness(condition)
        return
    except NotDecodableError as error:
        witness: Any = error.witness
        lengths, assumed = error.lengths, "taken as true" in error.message
    if lengths is None:
        assert witness.k > witness.q
        assert allowed_at(node, witness, witness.kv_len)
    elif not assumed:
        assert witness.k <= witness.q < min(lengths)
        assert witness.q + 1 == lengths[0]
        shorter, longer = (allowed_at(node, witness, length) for length in lengths)
        assert shorter is not longer
        assert shorter is witness.first


def allowed_at(node: Node, witness: Any, length: int) -> bool:
    """Is the pair allowed in a call with `length` keys? Names that the meaning does not read are given anything."""
    neutral = {role: np.zeros(length, np.int64) for role in ("documents", "query documents")}
    neutral |= {
        role: np.zeros((1, 1), np.int64) for role in ("blocks", "block lists", "draft ancestors", "draft depths")
    }
    neutral["segments"] = np.array([0, length])
    sizes = {"num_heads": witness.num_heads, "batch_size": witness.batch_size}
    tensors = {name: witness.arrays.get(name, neutral.get(role, 0)) for name, role in free_names(node).items()}
    mask = oracle.mask(node, length, length, **sizes, tensors=tensors)
    mask = np.broadcast_to(mask, (witness.batch_size, witness.num_heads, length, length))
    return bool(mask[witness.batch, witness.head, witness.q, witness.k])


TABLE = [
    ("causal", "true", "true", 0),
    ("last(4096)", "t <= k + 4095", "false", 4095),
    ("causal & (last(4096) | sink(64))", "k <= 63 or t <= k + 4095", "k <= 63", 4095),
    ("last(512, dilation=4)", "t <= k + 2044", "false", 2044),
    ("(last(128) | strided(128)) & causal", "true", "true", 0),
    ("(last(256) | columns([::512])) & causal", "t <= k + 255 or (k % 512) == 0", "(k % 512) == 0", 255),
    (
        "(last(1024) | columns([0:64, ::1024])) & causal",
        "k <= 63 or t <= k + 1023 or (k % 1024) == 0",
        "k <= 63 or (k % 1024) == 0",
        1023,
    ),
    ("chunk(8192) & causal", "(k % 8192) + t <= k + 8191", "false", 8191),
    ("fixed(128, 8) & causal", "(k % 128) + t <= k + 127 or 120 <= (k % 128)", "120 <= (k % 128)", 127),
    ("blockwise(64, local(1) | sink(1)) & causal", "k <= 63 or (k % 64) + t <= k + 127", "k <= 63", 127),
    ("neighborhood([128, 128], [13, 13], causal=true)", None, "false", 1548),
    ("last(1)", "false", "false", 0),
    ("none", "false", "false", 0),
    ("causal & where(q <= 2 * k)", "t <= 2*k", "false", None),
]


@pytest.mark.parametrize(("text", "live", "forever", "reach"), TABLE)
def test_published_patterns(text: str, live: str | None, forever: str, reach: int | None) -> None:
    found = live_of(text)
    assert live is None or found.formula() == live
    assert (found.forever, found.reach) == (forever, reach)
    assert found.exact


def test_a_chunk_dies_at_once() -> None:
    live = live_of("chunk(8192) & causal")
    assert live.mask(3 * 8192 - 1)[2 * 8192 :].all()
    assert not live.mask(3 * 8192).any()


@pytest.mark.parametrize("n", [1, 2, 17])
@pytest.mark.parametrize(("new", "rollback"), [(1, 0), (4, 0), (4, 7)])
def test_a_ring_never_loses_what_a_call_needs_and_a_shorter_one_does(n: int, new: int, rollback: int) -> None:
    live = live_of(f"last({n})")
    slots = live.slots(new, rollback)
    assert slots == n - 1 + new + rollback
    # a call is taken back, and `rollback` tokens before it; then another call
    first = 100
    written = first + rollback + new
    assert ring_holds(live, slots, written, first, new)
    if n > 1:
        assert not ring_holds(live, slots - 1, written, first, new)


def ring_holds(live: Liveness, slots: int, written: int, first: int, new: int) -> bool:
    """Are all keys still there that rows first .. first + new - 1 attend, in a ring once written up to `written`?"""
    ring = dict.fromkeys(range(slots), -1)
    for position in [*range(written), *range(first, first + new)]:
        ring[position % slots] = position
    return all(ring[int(k) % slots] == k for k in np.flatnonzero(live.mask(first)))


def test_pages_of_a_window_with_sinks() -> None:
    live = live_of("causal & (last(4096) | sink(64))")
    assert live.page_formula(16) == "j <= 3 or t <= 16*j + 4110"
    assert live.pages(131072, 16).tolist() == [0, 1, 2, 3, *range(126977 // 16, 8192)]
    assert live_of("(last(256) | columns([::512])) & causal").pages(2048, 16).tolist() == [
        0,
        32,
        64,
        96,
        *range(112, 128),
    ]


def test_why_a_key_has_to_stay() -> None:
    live = live_of("(last(128) | strided(128)) & causal")
    assert str(live.why(5, 1000)) == "q=1029, k=5, kv_len=1030"
    assert live_of("last(128)").why(5, 133) is None
    assert str(live_of("last(128)").why(6, 133)) == "q=133, k=6, kv_len=134"
    window_of_one_head = live_of("heads([3]) & causal | last(4)")
    assert str(window_of_one_head.why(0, 90)) == "q=90, k=0, kv_len=91, head=3 of 4"


def test_key_heads_need_what_any_of_their_query_heads_needs() -> None:
    text = "heads([4:8]) & causal | causal & (last(8) | sink(2))"
    by_head = [live_of(text, num_heads=16, num_kv_heads=4, kv_head=i).forever for i in range(4)]
    assert by_head == ["k <= 1", "true", "k <= 1", "k <= 1"]
    assert live_of(text).forever == live_of(text, num_heads=16).forever == "true"
    assert live_of(text, num_heads=4).forever == "k <= 1"
    alibi = "where(q - k < 16 * (h + 1)) & causal"
    assert [live_of(alibi, num_heads=8, num_kv_heads=4, kv_head=i).reach for i in range(4)] == [31, 63, 95, 127]


def test_the_end_of_a_bounded_call() -> None:
    live = live_of("(last(128) | strided(128)) & causal", length=300)
    assert not live.mask(300).any()
    assert live.why(171, 299) is not None
    assert live.why(0, 299) is None
    window = live_of("last(4096)", length=100)
    assert (window.formula(), window.forever, window.reach) == ("true", "false", 99)
    assert live_of("causal & where(q <= 2 * k)", length=100).reach == 49


@pytest.mark.parametrize(
    ("text", "assumed", "live"),
    [
        ("within(ids, causal & last(8))", ("ids[q] == ids[k]",), "t <= k + 7"),
        (
            "documents(segments(cu)) & chunk(64) & causal",
            ("segments(cu)[q] == segments(cu)[k]",),
            "(k % 64) + t <= k + 63",
        ),
        ("blocks(t) & last(100)", ("t[q // 64, k // 64]",), "t <= k + 99"),
        ("causal - columns([cls])", ("not (k in [cls])",), "true"),
        ("valid(n) & causal", ("k + 1 <= n[b]",), "true"),
        ("within(ids, causal & (sink(4) | last(8)))", None, "true"),
        ("causal - (blocks(t) | ~last(9))", ("not (t[q // 64, k // 64])",), "t <= k + 8"),
        ("last(20) - (blocks(t) & ~last(9))", ("not (t[q // 64, k // 64])",), "t <= k + 19"),
        ("random(3, past=true) & last(9)", None, "t <= k + 8"),
        ("where(t[q] == t[k] and q - k < 9) & causal", ("t[q] == t[k]",), "t <= k + 8"),
    ],
)
def test_what_isl_cannot_hold_is_taken_as_true_and_said(text: str, assumed: tuple[str, ...] | None, live: str) -> None:
    found = live_of(text)
    assert not found.exact
    assert found.assumed if assumed is None else found.assumed == assumed
    assert found.formula() == live


def test_long_lists_lie_between_their_ends() -> None:
    squares = ", ".join(str(n * n) for n in range(3, 90))
    live = live_of(f"last(10) | columns([{squares}]) & causal")
    assert (live.forever, live.reach, live.exact) == ("9 <= k and k <= 7921", 9, False)
    few = live_of("last(10) | columns([9, 16, 25]) & causal")
    assert np.flatnonzero(few.kept_mask(100)).tolist() == [9, 16, 25]
    assert few.exact


@pytest.mark.parametrize(
    ("text", "message", "lengths"),
    [
        ("local(3)", "query 0 attends key 1, which comes after it", None),
        ("documents(ids)", "query 0 attends key 1, which comes after it", None),
        ("heads([2]) | causal", "query 0 of head 2 of 3 attends key 1, which comes after it", None),
        ("causal & global([-1])", "query 0 attends key 0 among 1 key, and not among 2", (1, 2)),
        ("causal & tail(3)", "query 0 attends key 0 among 1 key, and not among 4", (1, 4)),
        ("causal & where(q + 5 < kv_len)", "query 0 attends key 0 among 6 keys, and not among 1", (1, 6)),
        (
            "documents(ids) & causal & columns([-1])",
            "query 0 attends key 0 among 1 key, and not among 2, with lists, tables and documents taken as true",
            (1, 2),
        ),
    ],
)
def test_no_step_computes_these(text: str, message: str, lengths: tuple[int, int] | None) -> None:
    with pytest.raises(NotDecodableError) as caught:
        live_of(text)
    assert (caught.value.code, caught.value.message, caught.value.lengths) == ("E062", message, lengths)
    assert caught.value.hint


def test_a_length_that_does_not_matter_is_no_reason() -> None:
    assert live_of("causal & last(8) & where(k < kv_len)").reach == 7
    assert live_of("last(8) & (tail(3) | rows([:-3]))").reach == 7


def test_what_is_taken_as_true_looks_ahead_and_the_pattern_does_not() -> None:
    ahead = "where((t[k] <= 0 and k + 3 < kv_len or k <= q) and (t[k] > 0 or k <= q)) & last(9, dilation=2)"
    assert live_of(ahead.replace(" & last(9, dilation=2)", "")).forever == "true"
    assert live_of(ahead).reach == 16


@pytest.mark.parametrize(
    "arguments",
    [
        {"kv_head": 0},
        {"num_kv_heads": 2},
        {"num_heads": 0},
        {"num_heads": 8, "num_kv_heads": 3},
        {"num_heads": 8, "num_kv_heads": 2, "kv_head": 2},
        {"length": 0},
        {"length": True},
    ],
)
def test_numbers_that_do_not_fit(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        live_of("causal", **arguments)
    assert caught.value.code == "E060"


def test_questions_that_do_not_fit() -> None:
    live = live_of("last(8)")
    questions: list[Callable[[], object]] = [
        lambda: live.mask(-1),
        lambda: live.mask(2.0),  # type: ignore[arg-type]
        lambda: live.kept_mask(True),
        lambda: live.pages(8, 0),
        lambda: live.page_formula(0),
        lambda: live.slots(0),
        lambda: live.slots(1, -1),
        lambda: live.why(8, 8),
        lambda: live.why(0, 0),
    ]
    for question in questions:
        with pytest.raises(ArgumentError, match="E060"):
            question()


def test_no_ring_without_a_reach() -> None:
    with pytest.raises(UnsupportedError) as caught:
        live_of("causal & where(q <= 2 * k)").slots()
    assert caught.value.code == "E062"


def test_over_the_cap_every_key_is_live_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "OPERATIONS", 10)
    live = liveness.__wrapped__(meaning(parse("last(8)")))
    assert (live.formula(), live.forever, live.note) == ("true", "true", room.TOO_HARD)
    assert not live.exact
    assert live.mask(20).all()
    assert live.why(0, 20) is None


def test_undecided_every_key_is_live_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def undecided(*_: object) -> None:
        raise UnsupportedError("E096", "neither proved nor refuted")

    monkeypatch.setattr(decoding, "least_point", undecided)
    live = liveness.__wrapped__(meaning(parse("last(4) | where(q >= 2 * k)")))
    assert (live.formula(), live.forever, live.exact) == ("true", "true", False)
    assert "was not decided (neither proved nor refuted)" in live.note
    with pytest.raises(UnsupportedError, match="E096"):
        live.why(0, 20)


def test_without_isl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affine, "available", False)
    with pytest.raises(MissingDependencyError):
        liveness.__wrapped__(meaning(parse("last(8)")))


SWEEP = """
import random, time
from hypothesis import HealthCheck, Phase, given, seed, settings
from spattn.errors import SpattnError
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Intersection
from spattn.relation import liveness
from tests.strategies import patterns

draw, end = random.Random(0), time.perf_counter() + 5

@seed(0)
@settings(max_examples=200, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=HealthCheck)
@given(patterns(depth=2, guards=False))
def sweep(node):
    for _ in range(8):
        if time.perf_counter() > end:
            return
        liveness.OPERATIONS = int(2 ** draw.uniform(4, 15))
        try:
            liveness.liveness.__wrapped__(meaning(Intersection((node, parse("causal")))))
        except SpattnError:
            pass

sweep()
"""


def test_caps_drawn_for_each_pattern_end_no_process() -> None:
    command = [sys.executable, "-X", "faulthandler", "-c", SWEEP]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, "PYTHONPATH": "."})
    assert done.returncode == 0, done.stderr[-3000:]
