"""The group `decode` on a CPU: what a run says, what counts as right, what layers read; peers by stand-ins."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from spattn import parse  # noqa: E402
from spattn.bench.decode import clock, graph, layers  # noqa: E402
from spattn.bench.decode.case import DecodeCase  # noqa: E402
from spattn.bench.decode.judge import DecodeJudge  # noqa: E402
from spattn.bench.decode.patterns import PATTERNS  # noqa: E402
from spattn.bench.decode.peers.flash import FlashDecode  # noqa: E402
from spattn.bench.decode.peers.flex import FlexDecode, mask_function  # noqa: E402
from spattn.bench.decode.peers.infer import FlashInfer  # noqa: E402
from spattn.bench.decode.peers.ours import SpattnDecoder  # noqa: E402
from spattn.bench.decode.peers.peer import DecodePeer, Ready  # noqa: E402
from spattn.bench.decode.peers.sdpa import AllKeys, PackedKeys  # noqa: E402
from spattn.bench.decode.selection import FEW, decode_workloads  # noqa: E402
from spattn.bench.decode.standing import decode_standings  # noqa: E402
from spattn.bench.decode.workload import DecodeWorkload, Numbers, Stored  # noqa: E402
from spattn.bench.options import Options  # noqa: E402
from spattn.bench.records import Result  # noqa: E402
from spattn.errors import ArgumentError, UnsupportedError  # noqa: E402

CPU = torch.device("cpu")
SMALL = {"q_heads": 4, "kv_heads": 2, "head_dim": 16}


def case_of(pattern: str, batch: int, length: int, **options: Any) -> DecodeCase:
    return DecodeCase(DecodeWorkload(PATTERNS[pattern], batch, length, **{**SMALL, **options}), CPU, torch.float32)


def errors(peer: DecodePeer, case: DecodeCase) -> Iterator[float]:
    """Of all requests, by all layers."""
    assert peer.refusal(case) is None
    ready, judge = peer.prepare(case), DecodeJudge(case)
    for layer in range(len(case.caches)):
        out = ready.step(layer)
        assert out.shape == case.q.shape
        yield from (judge.error(out, layer, request) for request in range(case.workload.batch))


@pytest.fixture(autouse=True)
def _few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "WARM", 1)
    monkeypatch.setattr(layers, "CPU_CACHE", 1 << 16)


@pytest.mark.parametrize("name", PATTERNS)
def test_the_mask_is_the_pattern(name: str) -> None:
    rows, length = 3, 4400
    q, k = torch.arange(length - rows, length)[:, None], torch.arange(length)
    assert torch.equal(PATTERNS[name].mask(q, k).expand(rows, length), parse(PATTERNS[name].text).mask(rows, length))
    assert PATTERNS[name].dense == bool(PATTERNS[name].mask(q, k)[-1:].all())


@pytest.mark.parametrize(("ragged", "new"), [(False, 1), (True, 4)])
def test_masks_of_requests(ragged: bool, new: int) -> None:
    case = case_of("strided", 3, 600, ragged=ragged, new=new)
    rows, slots = torch.arange(new)[:, None], torch.arange(600)
    bias = case.bias(causal=False)
    for request, n in enumerate(case.lengths.numbers):
        expected = torch.nn.functional.pad(parse(case.workload.pattern.text).mask(new, n), (0, 600 - n))
        assert torch.equal(mask_function(case)(request, 0, rows, slots), expected)
        assert torch.equal(bias[request if ragged else 0, 0] == 0, expected)
        needed = case.needed[request]
        assert torch.equal(needed.positions, expected.any(0).nonzero()[:, 0])
    assert case.needed_bytes == 2 * 4 * 2 * 16 * case.keys


class TestRuns:
    def test_all_storages(self, bench, tmp_path):
        answer = bench(
            "decode_headers", "--length", "520", "--batch", "1", "--stored", "all", "--peer", "spattn,packed"
        )
        assert answer.status == 0
        rows = answer.json["decoded"]
        assert [row["workload"] for row in rows[::2]] == [
            "decode_headers_b1_520",
            "decode_headers_b1_520_page16",
            "decode_headers_b1_520_page64",
            "decode_headers_b1_520_ring",
        ]
        for row in rows:
            assert row["outcome"] == "ok"
            assert row["us"] > 0
            assert row["error"] < 1e-5
            assert row["keys"] == 257
            assert row["needed_bytes"] == 257 * 2 * 8 * 128 * 4
            assert row["floor_us"] > 0
        assert Result.from_json(answer.path.read_text()).to_json() == answer.path.read_text()
        assert "microseconds a step" in answer.out
        assert "GB/s" in answer.json["machine"]["bandwidth"]
        pytest.importorskip("matplotlib")
        target = tmp_path / "f.png"
        assert bench("--draw", str(answer.path), "-o", str(target)).status == 0
        assert target.read_bytes().startswith(b"\x89PNG")

    def test_float8_ragged_drafts(self, bench):
        options = ("--numbers", "all", "--ragged", "--new", "2", "--batch", "2", "--length", "300")
        answer = bench("decode_strided", *options)
        assert answer.status == 0
        found = {(row["numbers"], row["peer"]): row["outcome"] for row in answer.json["decoded"]}
        assert found == {
            ("plain", "spattn"): "ok",
            ("plain", "masked SDPA"): "ok",
            ("plain", "packed SDPA"): "refused",
            ("fp8", "spattn"): "ok",
            ("fp8", "masked SDPA"): "refused",
            ("fp8", "packed SDPA"): "refused",
        }
        assert "packed SDPA: rows of a request need different keys" in answer.out

    @pytest.mark.parametrize("how", ["scaled", "one layer", "nan"])
    def test_a_wrong_answer_has_no_time(self, bench, monkeypatch, how):
        right = SpattnDecoder.prepare

        def prepare(self: SpattnDecoder, case: DecodeCase) -> Ready:
            ready = right(self, case)
            wrong = {
                "scaled": lambda layer: ready.step(layer) * 1.01,
                "one layer": lambda layer: ready.step(0),
                "nan": lambda layer: ready.step(layer) * math.nan,
            }
            return replace(ready, step=wrong[how])

        monkeypatch.setattr(SpattnDecoder, "prepare", prepare)
        monkeypatch.setattr(layers, "CPU_CACHE", 1 << 21)  # several layers
        answer = bench("decode_dense", "--length", "64", "--batch", "1", "--peer", "spattn,masked")
        assert answer.status == 1
        ours, other = answer.json["decoded"]
        assert (ours["outcome"], ours["us"], other["outcome"]) == ("wrong", None, "ok")
        assert "WRONG" in answer.out

    def test_what_does_not_fit_and_what_there_is_no_time_for(self, bench, monkeypatch):
        monkeypatch.setattr(layers, "_room", lambda device: 1 << 20)
        answer = bench("decode_dense", "--length", "4k", "--peer", "spattn")
        assert answer.status == 0
        assert [row["outcome"] for row in answer.json["decoded"]] == ["refused"]
        assert "keys and values of a layer alone" in answer.out
        answer = bench("decode", "--budget", "0")
        assert len(answer.json["left_out"]) > 5

    def test_who_refuses_and_who_fails(self, bench, monkeypatch):
        def fail(self: AllKeys, case: DecodeCase) -> Ready:
            raise RuntimeError("out of luck")

        monkeypatch.setattr(AllKeys, "prepare", fail)
        answer = bench("decode_dense", "--length", "64", "--peer", "masked,flex,flashinfer")
        assert answer.json["absent"]["FlexAttention"] == "here it runs on GPUs"
        assert "RuntimeError: out of luck" in answer.out

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("decode_windw",), "did you mean 'decode_window'?"),
            (("decode", "--stored", "page32"), "no storage is called 'page32'"),
            (("decode", "--peer", "row-blocks"), "no peer of decode"),
            (("decode_dense", "--stored", "ring"), "a ring holds windows"),
        ],
    )
    def test_what_does_not_exist(self, bench, arguments, said):
        answer = bench(*arguments)
        assert (answer.status, answer.out) == (2, "")
        assert said in answer.err


class TestSelection:
    def test_a_few_and_products(self):
        gpu = torch.device("cuda")
        assert decode_workloads(["decode"], Options(), gpu) == list(FEW)
        assert {one.pattern.name for one in decode_workloads(["decode_window"], Options(), gpu)} == {"window"}
        given = Options(length="8k..128k", batch="1,64", stored="all", new="1,4")
        found = decode_workloads(["decode"], given, gpu)
        assert len(found) == 3 * 2 * 2 * (5 * 3 + 3)
        assert found[0].name == "decode_dense_b1_8k"
        assert found[-1].name == "decode_vertical_b64_128k_ring_new4"
        with pytest.raises(ArgumentError, match="E060"):
            decode_workloads(["decode_strided"], Options(stored="ring"), gpu)
        with pytest.raises(UnsupportedError, match="E041"):
            decode_workloads(["decode"], Options(numbers="fp4"), gpu)

    @pytest.mark.parametrize("name", PATTERNS)
    def test_patterns_that_have_a_ring(self, name):
        one = DecodeWorkload(PATTERNS[name], 1, 1 << 17, Stored.RING)
        if PATTERNS[name].ring:
            assert layers._shape(one)[2] < 5000
        else:
            with pytest.raises(UnsupportedError, match="E062"):
                layers._shape(one)

    def test_ragged_lengths(self):
        one = DecodeWorkload(PATTERNS["dense"], 64, 8192, ragged=True)
        assert one.lengths == one.lengths
        assert max(one.lengths) == one.lengths[0] == 8192
        assert 1024 <= min(one.lengths) < 2048


class TestLayers:
    @pytest.mark.parametrize("stored", [Stored.DENSE, Stored.PAGE16])
    @pytest.mark.parametrize("pattern", ["headers", "vertical", "strided"])
    def test_bytes_of_a_round(self, monkeypatch, pattern, stored):
        """Where layers overlap, each still reads nearly all bytes for itself."""
        monkeypatch.setattr(layers, "CPU_CACHE", 1 << 19)
        case = case_of(pattern, 2, 8192, stored=stored)
        apart = case.layers
        assert apart.rotated_bytes == len(apart.caches) * case.needed_bytes >= 4 << 19
        room = 2 * case.caches[0].keys.nbytes * len(apart.caches) * 2 // 3
        monkeypatch.setattr(layers, "_room", lambda device: room)
        tight = case_of(pattern, 2, 8192, stored=stored)
        first, second = (cache.keys for cache in tight.caches[:2])
        assert 0 < second.data_ptr() - first.data_ptr() < first.nbytes
        addresses = set()
        for cache in tight.caches:
            for request, needed in enumerate(tight.needed):
                blocks, slots = cache.places(request, needed.positions)
                for head in range(2):
                    found = cache.keys[:, :, head]
                    steps = blocks * found.stride(0) + slots * found.stride(1)
                    addresses |= {found.data_ptr() + 4 * step for step in steps.tolist()}
        assert tight.layers.rotated_bytes == 2 * len(addresses) * 16 * 4
        assert 0.8 * apart.rotated_bytes < tight.layers.rotated_bytes <= apart.rotated_bytes
        assert max(errors(PackedKeys(), tight)) < 1e-5

    def test_all_share_lengths_and_a_table(self):
        case = case_of("dense", 2, 100, stored=Stored.PAGE16)
        case.lengths.shift(-1)
        assert len(case.caches) > 1
        for cache in case.caches:
            assert cache.kv_lens.tolist() == case.lengths.numbers == [99, 99]
            assert cache.table is case.caches[0].table


class TestClock:
    """What happens on a GPU, with a stand-in for it."""

    def test_a_graph_goes_round_all_layers(self, monkeypatch):
        case = case_of("strided", 2, 400)
        count, before = len(case.caches), list(case.lengths.numbers)
        assert 1 < count < clock.STEPS
        object.__setattr__(case, "device", torch.device("cuda"))
        events: list[Any] = []
        ready = Ready(lambda layer: events.append((layer, case.lengths.numbers[0])), lambda: events.append("renew"))

        class Graph(list):
            def replay(self) -> None:
                events.append(self)

            def reset(self) -> None:
                events.append("reset")

        def captured(calls: Any) -> Graph:
            calls()
            made = Graph(events)
            events.clear()
            return made

        def milliseconds_of(call: Any, device: Any) -> float:
            call()
            return 2.0

        monkeypatch.setattr(clock, "captured", captured)
        monkeypatch.setattr(clock, "launches", lambda graph: 3 * len(graph))
        monkeypatch.setattr(clock, "milliseconds_of", milliseconds_of)
        monkeypatch.setattr(clock, "synchronize", lambda device: None)
        found = clock.step_times(ready, case, 5)
        first, steps = events[0], -(-clock.STEPS // count) * count
        assert first == [(i % count, 400) for i in range(steps)]
        assert (found.us, found.samples, found.launches) == (2000 / steps, 5, 3.0)
        assert found.host_us is not None
        assert found.renewed_us is not None
        eager = events[events.index("reset") + 1 :]
        assert eager[: clock.HOST_SAMPLES] == [(0, 400)] * clock.HOST_SAMPLES
        assert eager[clock.HOST_SAMPLES :][:4] == ["renew", (0, 399), "renew", (0, 400)]
        assert case.lengths.numbers == case.lengths.tensor.tolist() == before

    def test_launches_of_a_graph(self, monkeypatch):
        kinds = {11: 0, 12: 1, 13: 2, 14: 5}

        class Driver:
            def cuGraphGetNodes(self, graph: Any, nodes: Any, count: Any) -> int:  # noqa: N802
                count._obj.value = len(kinds)
                for i, node in enumerate(kinds if nodes is not None else ()):
                    nodes[i] = node
                return 0 if graph.value == 7 else 1

            def cuGraphNodeGetType(self, node: Any, kind: Any) -> int:  # noqa: N802
                kind._obj.value = kinds[node.value]
                return 0

        class Captured:
            def __init__(self, handle: int) -> None:
                self.raw_cuda_graph = lambda: handle

        monkeypatch.setattr(graph.ctypes, "CDLL", lambda name: Driver())
        assert graph.launches(Captured(7)) == 3
        assert graph.launches(Captured(8)) is None


class TestPeers:
    @pytest.mark.parametrize("stored", Stored)
    @pytest.mark.parametrize("numbers", Numbers)
    def test_spattn(self, stored, numbers):
        options = {"stored": stored, "numbers": numbers, "ragged": True, "new": 3}
        assert max(errors(SpattnDecoder(backend="torch"), case_of("headers", 2, 700, **options))) < 1e-5

    @pytest.mark.parametrize(
        ("pattern", "stored", "new", "numbers"),
        [
            ("dense", Stored.PAGE16, 1, Numbers.FP8),
            ("dense", Stored.PAGE64, 4, Numbers.PLAIN),
            ("window", Stored.PAGE64, 1, Numbers.PLAIN),
            ("window", Stored.PAGE16, 4, Numbers.FP8),
        ],
    )
    def test_flashinfer(self, monkeypatch, pattern, stored, new, numbers):
        monkeypatch.setitem(sys.modules, "flashinfer", stand_in())
        case = case_of(pattern, 2, 4250, stored=stored, new=new, numbers=numbers)
        assert max(errors(FlashInfer(), case)) < 1e-5
        ready = FlashInfer().prepare(case)
        case.lengths.shift(-3)
        before = ready.step(0)
        ready.renew()
        assert not torch.equal(ready.step(0), before)

    @pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
    @pytest.mark.parametrize(("ragged", "new"), [(False, 1), (True, 4)])
    def test_flex_attention(self, monkeypatch, ragged, new):
        monkeypatch.setattr(torch, "compile", lambda function, **options: function)
        case = case_of("headers", 2, 700, ragged=ragged, new=new)
        assert max(errors(FlexDecode(), case)) < 1e-5

    @pytest.mark.parametrize(("ragged", "new"), [(False, 1), (True, 2)])
    def test_all_keys(self, ragged, new):
        assert max(errors(AllKeys(), case_of("dense", 2, 300, ragged=ragged, new=new))) < 1e-5
        assert not AllKeys().prepare(case_of("headers", 1, 300)).exact

    def test_flashinfer_refuses(self):
        assert FlashInfer().refusal(case_of("headers", 1, 600, stored=Stored.PAGE16))
        assert FlashInfer().refusal(case_of("dense", 1, 600))
        assert FlashInfer().refusal(case_of("window", 8, 8192, stored=Stored.PAGE16, ragged=True))

    @pytest.mark.parametrize("stored", [Stored.DENSE, Stored.PAGE16])
    def test_flash_attention(self, monkeypatch, stored):
        for name in ("flash_attn", "flash_attn.cute", "flash_attn.cute.interface"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["flash_attn.cute.interface"].flash_attn_varlen_func = flash_attn_varlen_func  # type: ignore[attr-defined]
        case = case_of("dense", 3, 300, stored=stored, ragged=True, new=2)
        assert max(errors(FlashDecode(), case)) < 1e-5
        assert FlashDecode().refusal(case_of("window", 1, 600))


def test_the_best_peer_has_the_keys_of_the_pattern(bench):
    answer = bench("decode_strided", "--length", "300", "--peer", "spattn,masked,packed")
    data = answer.json
    for row, us, exact in zip(data["decoded"], (10.0, 8.0, 20.0), (True, False, True), strict=True):
        row |= {"us": us, "exact": exact}
    (row,) = decode_standings(Result.from_json(json.dumps(data)).decoded)
    assert row.best is not None
    assert (row.best.peer, row.ratio) == ("packed SDPA", 2.0)
    del data["decoded"]
    assert Result.from_json(json.dumps(data)).decoded == []


def attended(q: Any, k: Any, v: Any, allowed: Any) -> tuple[Any, Any]:
    """`[rows, heads, dim]` and lse in base 2, of keys `[keys, heads, dim]`."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.float().repeat_interleave(group, 1) for x in (k, v))
    scores = torch.einsum("mhd,nhd->mhn", q, k) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~allowed[:, None], -math.inf)
    return torch.einsum("mhn,nhd->mhd", scores.softmax(-1), v), scores.logsumexp(-1) / math.log(2)


def stand_in() -> Any:
    """What FlashInfer documents of its paged wrappers, computed by torch."""
    module: Any = ModuleType("flashinfer")

    class Wrapper:
        def __init__(self, workspace: Any, layout: str, use_tensor_cores: bool = False) -> None:
            assert layout == "NHD"

        def run(self, q: Any, pages: Any, return_lse: bool = False, k_scale: float = 1, v_scale: float = 1) -> Any:
            found = []
            for b in range(len(self.filled)):
                own = self.indices[self.ends[b] : self.ends[b + 1]].long()
                n = (len(own) - 1) * pages[0].shape[1] + int(self.filled[b])
                k, v = (
                    one[own].flatten(0, 1)[:n].float() * s for one, s in zip(pages, (k_scale, v_scale), strict=True)
                )
                first, stop = int(self.rows[b]), int(self.rows[b + 1])
                at, keys = torch.arange(n - stop + first, n)[:, None], torch.arange(n)
                allowed = (keys <= at) | (not self.causal)
                if self.window_left >= 0:
                    allowed = allowed & (at - keys <= self.window_left)
                found.append(attended(q[first:stop], k, v, allowed))
            out, lse = (torch.cat(parts) for parts in zip(*found, strict=True))
            return (out, lse) if return_lse else out

    class Decode(Wrapper):
        def plan(self, ends: Any, indices: Any, filled: Any, *sizes: int, window_left: int, **dtypes: Any) -> None:
            assert sizes[:3] == (4, 2, 16)
            self.rows, self.ends, self.indices, self.filled = torch.arange(len(ends)), ends, indices, filled
            self.causal, self.window_left = False, window_left

    class Prefill(Wrapper):
        def plan(
            self, rows: Any, ends: Any, indices: Any, filled: Any, *sizes: int, causal: bool, window_left: int, **_: Any
        ) -> None:
            self.rows, self.ends, self.indices, self.filled = rows, ends, indices, filled
            self.causal, self.window_left = causal, window_left

    def merge_state(out: Any, lse: Any, other: Any, other_lse: Any) -> tuple[Any, Any]:
        both = torch.logaddexp2(lse, other_lse)
        return out * torch.exp2(lse - both)[..., None] + other * torch.exp2(other_lse - both)[..., None], both

    module.BatchDecodeWithPagedKVCacheWrapper, module.BatchPrefillWithPagedKVCacheWrapper = Decode, Prefill
    module.merge_state = merge_state
    return module


def flash_attn_varlen_func(q: Any, k: Any, v: Any, seqused_k: Any, causal: bool, page_table: Any = None) -> Any:
    """The same of FlashAttention-4: `[batch, rows, heads, dim]`, causal at the end."""
    assert causal
    found = []
    for b, n in enumerate(seqused_k.tolist()):
        own = slice(b, b + 1) if page_table is None else page_table[b].long()
        keys, values = (x[own].flatten(0, 1)[:n] for x in (k, v))
        at = torch.arange(n - q.shape[1], n)[:, None]
        found.append(attended(q[b], keys, values, torch.arange(n) <= at)[0])
    return torch.stack(found), None
