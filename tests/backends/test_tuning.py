"""Tuning with a clock that is not one: what is measured, what is kept, what is believed."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import spattn
from spattn.cache.store import Cache
from spattn.call.positions import Positions
from spattn.call.prepared import NONE
from spattn.call.request import Request
from spattn.codegen.kernel_specs import FORWARD
from spattn.codegen.tile import Tile
from spattn.cost.choice import ranked
from spattn.cost.tile_choice import bucket, tiles_of
from spattn.gpu import tile_records, tuning
from spattn.gpu.backward import Gradients, differentiate
from spattn.gpu.forward import attend
from spattn.gpu.heads import query_heads
from spattn.gpu.launch import Options, Outputs
from spattn.gpu.modules import Modules
from spattn.gpu.problem import Problem
from spattn.gpu.tile_records import record_of
from spattn.gpu.tuning import Report, Tuner
from spattn.machine.device import H200
from tests.kernels import TRITON, plans

TWO = "last(64) | strided(16) & causal"


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    tile_records._known.clear()
    yield
    tile_records._known.clear()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def problem(pattern: str = TWO, length: int = 4096, dtype: torch.dtype = torch.float16) -> Problem:
    """Passes on tensors that hold nothing; no kernel is loaded."""
    plan = plans(pattern)
    q = torch.empty(1, 4, length, 64, dtype=dtype, device="meta")
    request = Request(q, q, q, 0.125, Positions.usual(length, length), NONE)
    return Problem(FORWARD, plan.layout_of(()), Modules(plan, (), True), request, query_heads(request, None), TRITON)


class Clock:
    """Says what a function of the tiles says, and how often it was asked."""

    def __init__(self, time: Callable[[tuple[Tile, ...]], float]) -> None:
        self.time, self.asked = time, []

    def __call__(self, tiles: tuple[Tile, ...], run: Callable[[], None]) -> float:
        self.asked.append(tiles)
        return self.time(tiles)


class Idle:
    """Launches that nobody runs."""

    def run(self, tensors: object, prepared: object) -> None:
        raise AssertionError("the clock runs what it measures")


def found(cache: Cache, clock: Clock, one: Problem | None = None, heard: Callable[[Report], None] | None = None):
    return Tuner(cache, clock, heard).tiles(one or problem(), lambda tiles: Idle(), [])


def test_the_fastest_by_the_clock_wins(cache):
    one = problem()
    orders = [ranked(each, bucket(one), H200, TRITON) for each in one.layout.passes]
    wanted = tuple(order[place].tile for order, place in zip(orders, (3, 1), strict=True))
    clock = Clock(lambda tiles: 100.0 - 40 * (tiles[0] == wanted[0]) - 20 * (tiles[1] == wanted[1]))
    assert found(cache, clock, one) == wanted
    assert len(clock.asked) == 4 + 3
    assert len(set(clock.asked)) == 7


def test_a_hair_s_breadth_decides_nothing(cache):
    one = problem()
    times = iter([100.0, 99.5, 99.0, 98.5, 99.9, 99.8, 99.7])
    assert found(cache, Clock(lambda tiles: next(times)), one) == tiles_of(one)


def test_it_is_measured_once_a_bucket(cache):
    clock = Clock(lambda tiles: float(tiles[0].block_n))
    first = found(cache, clock, problem(length=4096))
    count = len(clock.asked)
    assert found(cache, clock, problem(length=3000)) == first
    assert len(clock.asked) == count
    found(cache, clock, problem(length=5000))
    found(cache, clock, problem(dtype=torch.bfloat16))
    found(cache, clock, problem("last(65) | strided(16) & causal"))
    assert len(clock.asked) == 4 * count


def test_another_process_reads_what_was_found(cache):
    clock = Clock(lambda tiles: float(tiles[0].block_n))
    first = found(cache, clock)
    tile_records._known.clear()
    silent = Clock(lambda tiles: 1 / 0)
    assert found(Cache(cache.root), silent) == first
    assert not silent.asked
    [entry] = cache.entries()
    assert entry.path.suffix == ".json"


@pytest.mark.parametrize(
    "record",
    [
        {"tiles": []},
        {"tiles": "64"},
        {"tiles": [[64, 64, 4, 3, 0, 1, 0]]},
        {"tiles": [[64, 64, 4, 3, 0, 1, 0], [64, 63, 4, 3, 0, 1, 0]]},
        {"tiles": [[64, 64, 4, 3, 0, 1, 0], [64, 64, 4, 3, 0, "1", 0]]},
        {"tiles": [[64, 64, 4, 3, 0, 1, 0], [64, 64, 4, 3, 0, 0, 0]]},
        {"tiles": [[64, 64, 4, 3, 0, 1, 0], None]},
        {"times": 3},
    ],
)
def test_a_record_that_makes_no_sense_is_measured_anew(cache, record):
    clock = Clock(lambda tiles: 1.0)
    wanted = found(cache, clock)
    [entry] = cache.entries()
    cache.write_json(entry.path.stem, record)
    tile_records._known.clear()
    assert found(cache, clock) == wanted
    assert len(clock.asked) == 14
    assert cache.read_json(entry.path.stem) == record_of(wanted, 1.0)


def test_a_damaged_record_is_measured_anew(cache):
    clock = Clock(lambda tiles: 1.0)
    wanted = found(cache, clock)
    [entry] = cache.entries()
    entry.path.write_bytes(entry.path.read_bytes().replace(b"64", b"32"))
    tile_records._known.clear()
    assert found(cache, clock) == wanted
    assert len(clock.asked) == 14


def test_a_candidate_that_does_not_run_is_dropped(cache):
    one = problem()
    usual = tiles_of(one)

    def time(tiles: tuple[Tile, ...]) -> float:
        if tiles[0] == usual[0]:
            raise RuntimeError("out of resource: shared memory")
        return 1.0

    reports: list[Report] = []
    tiles = found(cache, Clock(time), one, heard=reports.append)
    assert tiles is not None
    assert tiles[0] != usual[0]
    [report] = reports
    assert report.trials[0].measured is None
    assert report.tiles == tiles


def test_where_nothing_runs_nothing_is_kept(cache):
    assert found(cache, Clock(lambda tiles: 1 / 0)) is None
    assert cache.entries() == []


def test_a_captured_call_is_not_measured(cache, monkeypatch):
    clock = Clock(lambda tiles: 1.0)
    with monkeypatch.context() as patched:
        patched.setattr(tuning, "_is_captured", lambda job: True)
        assert found(cache, clock) is None
        assert not clock.asked
    wanted = found(cache, clock)
    monkeypatch.setattr(tuning, "_is_captured", lambda job: True)
    assert found(cache, clock) == wanted


def test_an_attention_keeps_that_it_tunes():
    attn = spattn.compile("last(8)", tune=True)
    again = pickle.loads(pickle.dumps(attn))  # noqa: S301
    assert again.tune
    assert again.records is not None
    assert spattn.compile("last(8)").records is None
    q = torch.randn(1, 1, 20, 16)
    torch.testing.assert_close(again(q, q, q), spattn.compile("last(8)")(q, q, q))


@pytest.mark.interpret
def test_tuned_results_are_the_same(cache, monkeypatch):
    attn = spattn.compile("last(8) | columns([::5])", backend="triton", tune=True)
    clock = Clock(lambda tiles: float(tiles[0].block_m))
    q, k, v = torch.randn(3, 1, 2, 70, 16)
    monkeypatch.setattr("spattn.attend.default_cache", lambda: cache)
    request = Request(q, k, v, 0.25, Positions.usual(70, 70), NONE)
    outputs = Outputs.of(request)
    attend(attn, request, outputs, Options(TRITON, tuner=Tuner(cache, clock)))
    assert clock.asked
    torch.testing.assert_close(outputs.out, spattn.compile(str(attn.pattern), backend="torch")(q, k, v))
    torch.testing.assert_close(attn(q, k, v), outputs.out)


@pytest.mark.interpret
def test_tuned_gradients_are_the_same(cache, monkeypatch):
    attn = spattn.compile("last(8) | columns([::5])", backend="triton", tune=True)
    monkeypatch.setattr("spattn.attend.default_cache", lambda: cache)
    request = Request(*torch.randn(3, 1, 2, 70, 16).half(), 0.25, Positions.usual(70, 70), NONE)
    outputs, d_out = Outputs.of(request), torch.randn(1, 2, 70, 16).half()
    attend(attn, request, outputs, Options(TRITON, tuner=Tuner(cache, Clock(lambda tiles: 1.0))))
    clock, heard, found = Clock(lambda tiles: float(tiles[0].block_m)), [], []
    for tuner in (Tuner(cache, clock, heard.append), None):
        into = Gradients.of(request.q, request.k, request.v)
        differentiate(attn, request, outputs, d_out, None, into, Options(TRITON, tuner=tuner))
        found.append(into)
    assert [report.kind for report in heard] == ["grad_q", "grad_kv"]
    assert all(trial.predicted is None for report in heard for trial in report.trials)
    assert len(clock.asked) > 2
    leaves = [x.clone().requires_grad_() for x in (request.q, request.k, request.v)]
    wanted = torch.autograd.grad(spattn.compile(str(attn.pattern), backend="torch")(*leaves), leaves, d_out)
    for into in found:
        for mine, theirs in zip((into.q, into.k, into.v), wanted, strict=True):
            torch.testing.assert_close(mine, theirs, atol=4e-3, rtol=4e-3)
