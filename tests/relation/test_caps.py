"""isl's cap, met at any place, ends a question and never the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.layout.planner import plan
from spattn.relation.affine import Sets

HARD = (
    "(local(58, 2, dilation=60) | columns([:-8:3, 8, 3:-39:2, 114:]) | prefix(4)) | (tri_shape(35, inf, 4)"
    " | sparse_transformer_strided | sparse_transformer_fixed(5)) | sparse_transformer_fixed(3) & modernbert"
    " & diagonals([-3, :106, :16:2, tokens])"
)
"""Capped at 20,000 operations isl read a null pointer here."""
FREED = "~last(inf, dilation=5) & (sink(19) & fixed(26, 2) & fixed(4, 6)) | global([48])"
"""Capped at some 600 operations isl freed memory twice here."""
SWEEP = f"""
import random, time
from hypothesis import HealthCheck, Phase, given, seed, settings
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.layout.planner import plan
from spattn.relation.affine import Sets
from tests.strategies import patterns

def asked(self, what, question, ask=Sets.ask):
    for trial in range(TRIALS if ASKED in (what, "") else 0):
        self.capped.clear()
        self.operations = FIRST + trial if FIRST else int(2 ** draw.uniform(0, 14.4))
        ask(self, what, question)
        if time.perf_counter() > end:
            break
    self.operations = 20_000
    return ask(self, what, question)

Sets.ask, draw = asked, random.Random(0)
ASKED, FIRST, TRIALS, end = "print", 500, 200, time.perf_counter() + 3
for direction in ("queries", "keys"):
    plan(meaning(parse({FREED!r})), direction)
ASKED, FIRST, TRIALS, end = "", 0, 12, time.perf_counter() + 5

@seed(0)
@settings(max_examples=60, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=HealthCheck)
@given(patterns(depth=2, guards=False))
def sweep(node):
    if time.perf_counter() < end:
        plan(meaning(node))

sweep()
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, so that its death is a failure and not the end of the tests."""
    command = [sys.executable, "-X", "faulthandler", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, "PYTHONPATH": "."})


def test_caps_drawn_for_each_question_end_no_process() -> None:
    done = run(SWEEP)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("cap", [19_999, 20_000, 20_001])
def test_the_default_cap_ends_no_process(cap: int) -> None:
    program = f"""
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.layout.planner import plan
from spattn.relation.affine import Sets
Sets.__init__.__defaults__ = ({cap},)
assert plan(meaning(parse({HARD!r}))).notes
"""
    done = run(program)
    assert done.returncode == 0, done.stderr[-3000:]


def test_an_answer_within_the_cap_is_the_answer_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    condition = meaning(parse("local(256) | columns([::512]) & causal"))
    capped = plan(condition)
    monkeypatch.setattr(Sets.__init__, "__defaults__", (0,))
    assert plan(condition) == capped
