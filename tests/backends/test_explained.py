"""What an explanation says of plans and tiles, beside what a launch of the same call takes; no kernel runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spattn
from spattn.analysis import calls
from spattn.analysis.calls import Call
from spattn.analysis.explanation import Explanation
from spattn.analysis.plans import About, groups
from spattn.attend import Attention
from spattn.backends.gpu import Gpu
from spattn.cache.store import Cache
from spattn.call.positions import Numbers, standing
from spattn.call.request import Request
from spattn.codegen.tile import Tile
from spattn.cost.sizes import Sizes
from spattn.gpu import launch, tile_records
from spattn.gpu.forward import attend
from spattn.gpu.launch import Options, Outputs
from spattn.gpu.launch_plan import Problem
from spattn.gpu.token_counts import token_counts
from spattn.gpu.tuning import Tuner
from spattn.machine.device import H200
from spattn.pattern import Pattern
from spattn.runtime.arguments import checked
from spattn.runtime.kinds import kind_of
from tests import strategies
from tests.kernels import TRITON

pytest.importorskip("triton")

Taken = list[tuple[Problem, tuple[Tile, ...]]]
LENGTHS = (1, 17, 500, 1024, 3000, 8192)
KNOWN = (
    "causal",
    "strided(1024) & causal",
    "strided(16) & causal | last(64)",
    "local(128) | global([0, 7, 7, -1, 100000])",
    "columns(tokens) | last(4)",
    "columns([100000]) | last(4)",
    "global(tokens) | local(20)",
    "heads([0]) & causal | heads([1:]) & last(8)",
    "random(2, block=16) | last(4)",
    "documents(ids) & causal",
    "neighborhood(grid=[10, 20], kernel=5)",
)


@pytest.fixture(scope="module", autouse=True)
def taken() -> Iterator[Taken]:
    """What launches settled; they launch nothing."""
    found: Taken = []

    def settle(problem: Problem, tensors: object, tiles: tuple[Tile, ...]) -> Idle:
        found.append((problem, tuple(tiles)))
        return Idle()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(launch, "planned", settle)
        patched.setattr(calls, "MAX_TILED", 64)
        yield found


class Idle:
    """Launches that launch nothing."""

    def run(self, tensors: object, prepared: object) -> None:
        """Nothing."""


@st.composite
def requests(draw: st.DrawFn, pattern: Pattern) -> Request:
    heads, group = draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 4]))
    batch, q_len, num_keys = draw(st.integers(1, 2)), draw(st.sampled_from(LENGTHS)), draw(st.sampled_from(LENGTHS))
    before, after = (draw(st.sampled_from([0, 0, 1, 700, 5000])) for _ in range(2))
    kv_len = before + num_keys + after
    dims = [draw(st.sampled_from([16, 40, 64, 96, 128, 256])) for _ in range(2)]
    dtype = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
    tensors = draw(strategies.tensors_for(pattern.syntax, q_len, kv_len, batch, heads * group))
    shapes = (heads * group, q_len, dims[0]), (heads, num_keys, dims[0]), (heads, num_keys, dims[1])
    q, k, v = (torch.empty(batch, *shape, dtype=dtype) for shape in shapes)
    said = Numbers(draw(st.sampled_from([None, 0, 5, before, kv_len])), before, kv_len)
    return checked(q, k, v, scale=None, roles=pattern.free_names, tensors=tensors, tf32=draw(st.booleans()), said=said)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_plan_and_tiles_are_those_of_the_launch(taken, data):
    drawn = st.builds(str, strategies.patterns(depth=2))
    pattern = spattn.parse(data.draw(st.one_of(st.sampled_from(KNOWN), drawn), "pattern"))
    attn, request = spattn.compile(pattern), data.draw(requests(pattern))
    taken.clear()
    attend(attn, request, Outputs.of(request), Options(TRITON))
    call = Call(request.shape, {name: one.numpy() for name, one in request.tensors.items()})
    found = groups(attn, About(call, call.shortened(pattern.condition, pattern.free_names), H200), in_triton=True)
    assert len(found) == len(taken)
    for group, (job, tiles) in zip(found, taken, strict=True):
        sizes = {name: np.shape(one) for name, one in call.tensors.items()}
        assert token_counts(job.layout, sizes, call.kv_len) == job.tokens
        assert len(group.passes) == len(job.layout.passes)
        if group.other is not None:
            assert group.other.classes != job.layout.in_classes
        for part, one, tile in zip(group.passes, job.layout.passes, tiles, strict=True):
            assert (part.tiling.block_m, part.tiling.block_n) == (tile.block_m, tile.block_n)
            assert (part.cost is None) == one.skips(*job.rows)
            assert part.cost is None or part.cost.tile == str(tile)


def test_calls_of_one_kind_have_one_bucket():
    """A call that is served like an earlier one has its tiles: they are those that would be chosen for it."""
    buckets: dict[Any, set[Any]] = {}
    numbers = (0, 1, 300, 512, 700, 1000, 1024, 2000, 5000)
    for q_len, num_keys in itertools.product((1, 64, 700), (1, 500, 512, 600, 1000)):
        for q_offset, before, after in itertools.product(numbers, numbers, (0, 1, 3000)):
            at = standing(q_len, before + num_keys + after, q_offset=q_offset, k_offset=before, num_keys=num_keys)
            shapes = [(1, 2, n, 16) for n in (q_len, num_keys, num_keys)]
            strides = (0, 0, 16, 1)
            kind = kind_of((*shapes, *[strides] * 3, (), (), None, at.said, ()))
            sizes = Sizes(at.q_len, at.kv_len, at.q_offset, 2, 1, 16, 2, given=at.given).bucketed()
            buckets.setdefault(kind, set()).add(sizes)
    assert all(len(found) == 1 for found in buckets.values())
    assert len(buckets) < 3000


def ran(attn: Attention, taken: Taken, tuner: Tuner | None = None, **options: Any) -> tuple[Tile, ...]:
    """The tiles of a call of four heads on two, 3000 tokens."""
    q, k = (torch.empty(1, heads, 3000, 64, **options) for heads in (4, 2))
    request = checked(q, k, k, scale=None, tf32=False, roles={}, tensors={})
    taken.clear()
    attend(attn, request, Outputs.of(request), Options(TRITON, tuner=tuner))
    _, tiles = taken[-1]
    return tiles


def told(found: Explanation) -> list[str]:
    return [one.cost.tile for group in found.groups for one in group.passes]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_dtype_decides_the_tile(taken, dtype):
    attn = spattn.compile("causal")
    sizes = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 64}
    [tile] = ran(attn, taken, dtype=dtype)
    assert told(attn.explain(3000, dtype=dtype, **sizes)) == [str(tile)]
    assert told(attn.explain(3000, dtype=str(dtype).removeprefix("torch."), **sizes)) == [str(tile)]
    assert (told(attn.explain(3000, **sizes)) == [str(tile)]) == (dtype != torch.float32)


class TestMeasured:
    PATTERN = "last(64) | strided(16) & causal"
    SIZES = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 64, "dtype": "float16"}

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
        made = Cache(tmp_path / "cache")
        monkeypatch.setattr("spattn.attend.default_cache", lambda: made)
        tile_records._known.clear()
        yield made
        tile_records._known.clear()

    @pytest.fixture
    def measured(self, cache: Cache, taken: Taken) -> tuple[Tile, ...]:
        """Tiles that are not those predicted best: the clock likes whatever is tried later."""
        times = iter(range(1000, 0, -100))
        attn = spattn.compile(self.PATTERN)
        best = ran(attn, taken, Tuner(cache, lambda tiles, run: float(next(times))), dtype=torch.float16)
        assert best != ran(attn, taken, dtype=torch.float16)
        return best

    def explained(self, **options: Any) -> Explanation:
        return spattn.compile(self.PATTERN, tune=True).explain(3000, **{**self.SIZES, **options})

    @pytest.mark.parametrize("forgotten", [False, True])
    def test_measured_tiles_are_told(self, taken, measured, forgotten):
        if forgotten:
            tile_records._known.clear()
        found = self.explained()
        assert told(found) == list(map(str, measured))
        assert ran(spattn.compile(self.PATTERN, tune=True), taken, dtype=torch.float16) == measured
        assert found.microseconds == found.groups[0].measured == 400.0
        assert f"measured    400 us on one {found.device}" in str(found)
        assert "  measured: 400 us of all passes with these tiles" in str(found)
        assert "why: it was measured, and none that was tried is faster" in str(found)
        assert found.groups[0].passes[0].cost.candidates[0].tile == str(measured[0])

    @pytest.mark.parametrize(
        "other",
        [{"dtype": "bfloat16"}, {"head_dim": 128}, {"v_head_dim": 16}, {"num_kv_heads": 4}, {"q_offset": 9000}],
    )
    def test_what_was_not_measured_is_predicted(self, measured, other):
        found = self.explained(**other)
        assert found.groups[0].measured is None
        assert told(found) == told(spattn.compile(self.PATTERN).explain(3000, **{**self.SIZES, **other}))
        assert "not measured yet" in str(found)
        assert "predicted   " in str(found)

    def test_who_does_not_tune_reads_no_records(self, measured):
        found = spattn.compile(self.PATTERN).explain(3000, **self.SIZES)
        assert found.groups[0].measured is None
        assert told(found) != list(map(str, measured))
        assert "measured" not in str(found)

    def test_a_record_without_a_time(self, cache, measured):
        [entry] = [one for one in cache.entries() if one.path.suffix == ".json"]
        record = cache.read_json(entry.path.stem)
        cache.write_json(entry.path.stem, {**record, "microseconds": "fast"})
        tile_records._known.clear()
        found = self.explained()
        assert told(found) == list(map(str, measured))
        assert found.groups[0].measured is None


@pytest.mark.parametrize(
    ("dtype", "dims"), [("float64", (64, 64)), ("float16", (257, 64)), ("float32", (64, 512)), ("float16", (256, 16))]
)
@pytest.mark.parametrize(("backend", "served"), [("auto", "torch"), ("triton", None), ("torch", "torch")])
def test_what_triton_refuses_is_told(dtype, dims, backend, served, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # else the machine is refused first
    q, v = (torch.empty(1, 1, 32, dim, dtype=getattr(torch, dtype)) for dim in dims)
    attn = spattn.compile("causal", backend=backend)
    why = Gpu(TRITON).refusal(attn, checked(q, q, v, scale=None, tf32=False, roles={}, tensors={}))
    found = attn.explain(32, head_dim=dims[0], v_head_dim=dims[1], dtype=dtype)
    assert found.refusal == why
    assert found.served == (served if why or backend == "torch" else "triton")
    assert all((one.tiling is None) == (found.served != "triton") for group in found.groups for one in group.passes)
    if why is not None and backend != "torch":
        assert why in str(found)
