"""Each command: what it answers, and the exit status that goes with it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import spattn


class TestCheck:
    def test_a_pattern(self, spattnc):
        answer = spattnc("check", "local(w)", "--set", "w=4")
        assert (answer.status, answer.out, answer.err) == (0, "ok: local(4)\n", "")

    def test_no_pattern(self, spattnc):
        answer = spattnc("check", "locl(3)")
        assert (answer.status, answer.out) == (1, "")
        assert "did you mean 'local'?" in answer.err

    def test_every_error_as_json(self, spattnc):
        answer = spattnc("check", "locl(3) | lst(2)", "--json")
        assert answer.status == 1
        assert answer.json["schema"] == "spattn/check/1"
        assert [error["span"] for error in answer.json["errors"]] == [[0, 4], [10, 13]]

    @pytest.mark.parametrize(
        ("pattern", "code"),
        [("causal & ~causal", "W001"), ("causal | anticausal", "W002"), ("log_sparse", "W003"), ("last(9)", "")],
    )
    def test_warnings(self, spattnc, pattern, code):
        answer = spattnc("check", pattern, "--json")
        assert answer.status == 0
        assert [warning["code"] for warning in answer.json["warnings"]] == ([code] if code else [])
        assert code in answer.err


class TestCheckOfConfigs:
    YAML = """\
model: {layers: 4}
spattn:
  pattern: >-
    causal & (last(w)
      | snk(4) | lst(2))
  layers: {0: "causal &"}
  bind: {w: 1024}
"""

    def test_errors_where_they_stand(self, spattnc, tmp_path):
        pytest.importorskip("yaml")
        path = tmp_path / "model.yaml"
        path.write_text(self.YAML)
        answer = spattnc("check", str(path))
        assert (answer.status, answer.out) == (1, "")
        assert f"{path}:5:9: error E012: there is no pattern 'snk'\n      | snk(4)" in answer.err
        assert f"{path}:5:18: error E012: there is no pattern 'lst'" in answer.err
        assert f"{path}:6:24: error E004" in answer.err
        errors = spattnc("check", str(path), "--json").json["errors"]
        keys = [(error["code"], error["key"], error["line"], error["column"]) for error in errors]
        assert keys == [
            ("E012", "spattn.pattern", 5, 9),
            ("E012", "spattn.pattern", 5, 18),
            ("E004", "spattn.layers.0", 6, 24),
        ]

    def test_a_config(self, spattnc, tmp_path):
        path = tmp_path / "model.toml"
        path.write_text('pattern = "causal | anticausal"\nlayers = { "1:3" = "last(w)" }\nbind.w = 8')
        answer = spattnc("check", str(path))
        assert (answer.status, answer.out) == (0, "ok: pattern: causal | anticausal\nok: layers.1:3: last(8)\n")
        assert answer.err.startswith(f"{path}:1:12: warning W002")
        data = spattnc("check", str(path), "--json").json
        assert (data["valid"], data["config"]["bind"], data["warnings"][0]["line"]) == (True, {"w": 8}, 1)

    @pytest.mark.parametrize(
        ("text", "place", "code"),
        [
            ('{"patern": "causal"}', "1:12", "E070"),
            ('{"pattern":\n [0, 7]}', "2:2", "E071"),
            ('{"pattern": "full", "num_layers": 2, "layers": {"2": "full"}}', "1:54", "E072"),
            ('{"pattern": causal}', "1:13", "E070"),
        ],
    )
    def test_no_config(self, spattnc, tmp_path, text, place, code):
        path = tmp_path / "model.json"
        path.write_text(text)
        answer = spattnc("check", str(path))
        assert answer.status == 1
        assert answer.err.startswith(f"{path}:{place}: error {code}")
        assert spattnc("check", str(path), "--json").json["errors"][0]["code"] == code

    def test_usage(self, spattnc, tmp_path):
        path = tmp_path / "model.json"
        assert spattnc("check", str(path)).status == 2
        path.write_text('{"pattern": "causal"}')
        assert spattnc("check", str(path), "--set", "w=4").status == 2
        assert spattnc("check", str(path), "--layer", "0").status == 2


class TestEmit:
    def test_source_is_a_module(self, spattnc, tmp_path):
        path = tmp_path / "kernel.py"
        answer = spattnc("emit", "local(64) | global([0])", "-o", str(path))
        assert (answer.status, answer.out) == (0, "")
        compile(path.read_text(), str(path), "exec")
        assert spattnc("emit", "local(64) | global([0])").out == path.read_text()
        assert [child.name for child in tmp_path.iterdir()] == ["kernel.py"]

    def test_relation(self, spattnc):
        lines = spattnc("emit", "documents(ids) & causal", "--stage", "relation").out.splitlines()
        assert lines == ["means  ids[q] == ids[k] and k <= q", "term 0: k <= q", "  where ids[q] == ids[k]"]

    def test_layout(self, spattnc):
        assert "pass 1: all queries" in spattnc("emit", "last(8) | rows([0])", "--stage", "layout").out
        backward = "emit", "last(8) | rows([0])", "--direction", "backward"
        assert "all keys" in spattnc(*backward, "--stage", "layout").out
        assert {"grad_q_1", "grad_kv_0"} <= set(re.findall(r"def (\w+)\(", spattnc(*backward).out))

    def test_scores(self, spattnc):
        text = spattnc("emit", "causal", "--score", "softcap(30)").out
        assert "#   score    softcap(30)" in text
        assert "30.0 * tanh(" in text
        wrong = spattnc("emit", "causal", "--score", "softcp(30)")
        assert wrong.status == 2
        assert "did you mean 'softcap'?" in wrong.err

    def test_groups_of_heads(self, spattnc):
        pattern = "heads([0]) & causal | heads([1]) & last(8)"
        assert "group 1" in spattnc("emit", pattern, "--stage", "layout").out
        texts = {spattnc("emit", pattern, "--group", str(i)).out for i in range(2)}
        assert len(texts) == 2
        assert spattnc("emit", pattern, "--group", "9").status == 2
        assert "--group" in spattnc("emit", pattern).err

    def test_json(self, spattnc):
        answer = spattnc("emit", "causal", "--stage", "pattern", "--json").json
        assert answer == {"schema": "spattn/emit/1", "pattern": "causal", "stage": "pattern", "text": "causal\n"}

    @pytest.mark.aot
    @pytest.mark.parametrize(
        ("target", "stage", "mark"),
        [("cuda:90", "ptx", ".target sm_90a"), ("cuda:90", "ttir", "tt.func"), ("hip:gfx942", "amdgcn", "gfx942")],
    )
    def test_machine_code(self, spattnc, target, stage, mark):
        pytest.importorskip("triton", reason="Triton is not installed")
        answer = spattnc("emit", "last(64)", "--stage", stage, "--target", target, "--head-dim", "32", "--json").json
        assert mark in answer["text"]
        [one] = answer["passes"]
        assert one["registers"] > 0
        assert one["spilled_bytes"] == 0

    @pytest.mark.aot
    def test_a_step_of_a_decoder(self, spattnc):
        assert "def decode(" in spattnc("emit", "last(64)", "--shape", "decode").out
        assert spattnc("emit", "last(64)", "--shape", "decode", "--direction", "backward").status == 2

    def test_a_form_that_the_target_lacks(self, spattnc):
        pytest.importorskip("triton", reason="Triton is not installed")
        answer = spattnc("emit", "last(64)", "--stage", "amdgcn", "--head-dim", "32")
        assert answer.status == 2
        assert "there is no amdgcn" in answer.err

    def test_the_interpreter_compiles_nothing(self, spattnc, monkeypatch):
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        pytest.importorskip("triton", reason="Triton is not installed")
        answer = spattnc("emit", "last(64)", "--stage", "ptx")
        assert answer.status == 2
        assert "env -u TRITON_INTERPRET" in answer.err


class TestExplain:
    def test_text(self, spattnc):
        answer = spattnc("explain", "local(256) | global([0, cls])", "--set", "cls=7", "-n", "2048")
        assert answer.status == 0
        for part in ("517*S - 66834", "pass 1", "64 x 64", "density", "why: ", "predicted   "):
            assert part in answer.out

    def test_json(self, spattnc):
        answer = spattnc("explain", "last(8) | causal & last(4)", "--q-len", "100", "--json").json
        assert answer["schema"] == "spattn/explain/1"
        assert answer["dead_terms"] == ["causal & last(4)"]
        assert answer["pairs"] == 8 * 100 - 28
        [one] = answer["groups"][0]["passes"]
        assert one["cost"]["candidates"][0] == {"tile": one["cost"]["tile"], "microseconds": answer["microseconds"]}

    def test_a_step_of_a_decoder(self, spattnc):
        sizes = ("--shape", "decode", "--heads", "32", "--kv-heads", "8", "--kv-len", "8192", "--page-size", "16")
        answer = spattnc("explain", "heads([0:8]) & causal | causal & last(100)", *sizes, "--json").json
        assert [(one["heads"], one["packed"], one["keys"]) for one in answer["groups"]] == [(8, 4, 8192), (24, 4, 100)]
        assert [one["needed"] for one in answer["groups"]] == [2 * 8192 * 256 * 2, 6 * 100 * 256 * 2]
        assert answer["live"]["parts"][1]["slots"] == 100
        assert "none for decoding: query 0 attends key 1" in spattnc("explain", "full", *sizes).out

    def test_lengths_without_limit(self, spattnc):
        answer = spattnc("explain", "last(8)", "-n", "1000000000", "--json").json
        assert answer["pairs"] == 8 * 10**9 - 28
        assert answer["tiled_len"] == [32768, 32768]

    def test_the_call(self, spattnc):
        sizes = ("--heads", "8", "--kv-heads", "2", "--head-dim", "96", "--v-head-dim", "64", "--q-offset", "5")
        arguments = ("explain", "last(8)", "-n", "100", "--kv-len", "200", "--dtype", "fp32", *sizes)
        answer = spattnc(*arguments, "--json").json
        found = spattn.compile("last(8)").explain(
            100, 200, num_heads=8, num_kv_heads=2, head_dim=96, v_head_dim=64, dtype="float32", q_offset=5
        )
        wanted = json.loads(json.dumps(found.to_dict()))
        for one in (*answer["groups"], *wanted["groups"]):
            del one["planning_ms"]
        assert answer == {"schema": "spattn/explain/1", **wanted}
        assert "float32, head dimension 96, 64 of v and out" in spattnc(*arguments).out
        assert "8 heads on 2 of keys, the first query at 5" in spattnc(*arguments).out

    def test_some_keys_of_a_whole(self, spattnc):
        sizes = ("-n", "100", "--kv-len", "400", "--q-offset", "150", "--k-offset", "120", "--keys", "80")
        answer = spattnc("explain", "last(8)", *sizes, "--missing-keys", "ignore", "--json").json
        found = spattn.compile("last(8)").explain(
            100, 400, q_offset=150, k_offset=120, num_keys=80, missing_keys="ignore"
        )
        assert answer["pairs"] == found.pairs == 50 * 8 + 28
        assert (answer["k_offset"], answer["num_keys"], answer["kv_len"]) == (120, 80, 400)
        refused = spattnc("explain", "last(8)", *sizes)
        assert refused.status == 2
        assert refused.err.startswith("error E060: row 50, at position 200, attends key 200, and keys 120 .. 199 are")

    def test_tiles_that_are_not_measured(self, spattnc):
        assert "not measured yet" not in spattnc("explain", "last(8)", "-n", "100").out
        answer = spattnc("explain", "last(8)", "-n", "100", "--tuned")
        assert "not measured yet" in answer.out

    def test_a_call_that_triton_does_not_serve(self, spattnc):
        answer = spattnc("explain", "last(8)", "-n", "100", "--dtype", "fp64", "--json").json
        assert (answer["served"], answer["microseconds"]) == ("torch", 0)
        assert answer["refusal"] == "the kernels serve float16, bfloat16 and float32, not float64"
        text = spattnc("explain", "last(8)", "-n", "100", "--head-dim", "320").out
        assert "backend     torch, since Triton does not: head dimensions go up to 256, not 320" in text

    def test_a_dtype_that_is_none(self, spattnc):
        answer = spattnc("explain", "last(8)", "--dtype", "int8")
        assert answer.status == 2
        assert answer.err.startswith("error E060: q is int8; float16, bfloat16, float32 and float64 are served")


class TestShow:
    def test_text(self, spattnc):
        lines = spattnc("show", "causal", "-n", "3", "--kv-len", "4").out.splitlines()
        assert [line.strip(" 0123456789").strip("│|") for line in lines[1:4]] in (
            ["████    ", "██████  ", "████████"],
            ["####    ", "######  ", "########"],
        )

    def test_a_file_by_its_name(self, spattnc, tmp_path):
        path = tmp_path / "mask.svg"
        assert spattnc("show", "causal & chunk(8)", "-o", str(path)).status == 0
        assert ElementTree.fromstring(path.read_text()).tag.endswith("svg")

    def test_png(self, spattnc, tmp_path):
        pytest.importorskip("matplotlib")
        path = tmp_path / "mask.png"
        assert spattnc("show", "causal", "-n", "5", "-o", str(path)).status == 0
        assert path.read_bytes().startswith(b"\x89PNG")

    def test_json(self, spattnc):
        answer = spattnc("show", "causal", "-n", "2", "--json").json
        assert answer["fraction"] == [[1.0, 0.0], [1.0, 1.0]]

    def test_some_keys_of_a_whole(self, spattnc):
        sizes = ("-n", "2", "--kv-len", "9", "--q-offset", "4", "--k-offset", "3", "--keys", "4")
        answer = spattnc("show", "causal", *sizes, "--json").json
        assert answer["fraction"] == [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
        assert answer["columns"] == [3, 4, 5, 6, 7]
        assert answer["placement"] == ["keys 3 .. 6 of 9", "the first query at 4"]
        assert spattnc("show", "causal", *sizes).out.splitlines()[0].split() == ["3"]

    def test_a_length_without_limit(self, spattnc):
        answer = spattnc("show", "local(256) | global([0])", "-n", "1000000000")
        assert answer.status == 0
        assert "sampled" in answer.out

    def test_tensors_without_limit_there_are_none(self, spattnc):
        answer = spattnc("show", "documents(ids)", "-n", "1000000000")
        assert answer.status == 2
        assert "E094" in answer.err


class TestVerify:
    @pytest.mark.parametrize("pattern", ["local(5) | global([0, -1])", "documents(ids) & causal", "moba(table, 16)"])
    def test_a_right_pattern(self, spattnc, pattern):
        pytest.importorskip("torch")
        answer = spattnc("verify", pattern, "-n", "70", "--kv-len", "80", "--head-dim", "16", "--json")
        assert answer.status == 0
        rungs = {rung["name"]: rung["passed"] for rung in answer.json["rungs"]}
        assert rungs["layout"]
        assert rungs["torch"]

    @pytest.mark.parametrize("at", [["--k-offset", "31"], ["--k-offset", "20", "--keys", "33", "--q-offset", "15"]])
    @pytest.mark.parametrize(
        "pattern", ["local(5) | global([0, -1])", "documents(ids) & causal", "random(2, block=16)"]
    )
    def test_some_keys_of_a_whole(self, spattnc, pattern, at):
        pytest.importorskip("torch")
        answer = spattnc("verify", pattern, "-n", "70", "--kv-len", "80", *at, "--head-dim", "16", "--json")
        assert answer.status == 0
        rungs = {rung["name"]: rung for rung in answer.json["rungs"]}
        assert rungs["layout"]["passed"]
        assert rungs["torch"]["passed"]
        parsed = spattn.parse(pattern)
        if not parsed.free_names:
            offset = {"q_offset": 15, "num_keys": 33, "k_offset": 20} if "--keys" in at else {"k_offset": 31}
            mask = parsed.mask(70, 80, num_heads=2, **offset)
            pairs = mask.expand(1, 2, *mask.shape[-2:]).sum()
            assert rungs["layout"]["detail"] == f"the same {pairs} pairs"

    def test_a_wrong_layout_is_named(self, spattnc, monkeypatch):
        pytest.importorskip("torch")
        from spattn.analysis import ladder
        from spattn.layout.rebuild import layout_mask

        monkeypatch.setattr(ladder, "layout_mask", lambda *sizes, **call: ~layout_mask(*sizes, **call))
        answer = spattnc("verify", "last(4)", "-n", "20")
        assert answer.status == 1
        assert "DIFFERS   layout" in answer.out

    def test_a_wrong_backend_is_named(self, spattnc, monkeypatch):
        pytest.importorskip("torch")
        from spattn.backends.torch import backend

        right = backend.serve
        monkeypatch.setattr(backend, "serve", lambda *call: replace(right(*call), out=right(*call).out + 0.1))
        answer = spattnc("verify", "last(4)", "-n", "20", "--backend", "torch")
        assert answer.status == 1
        assert "DIFFERS   torch" in answer.out

    def test_a_backend_that_cannot_run_here(self, spattnc, monkeypatch):
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("it can")
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        answer = spattnc("verify", "last(4)", "-n", "20", "--backend", "triton")
        assert answer.status == 3

    @pytest.mark.interpret
    def test_the_interpreter(self, spattnc):
        pytest.importorskip("triton", reason="Triton is not installed")
        answer = spattnc("verify", "last(9) | columns([0])", "-n", "40", "--head-dim", "16", "--backend", "triton")
        assert answer.status == 0
        assert "ok        triton" in answer.out


class TestTune:
    def test_without_a_gpu(self, spattnc):
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is one")
        answer = spattnc("tune", "last(8)", "--length", "64", "--heads", "2", "--head-dim", "16", "--dtype", "fp16")
        assert (answer.status, answer.out) == (3, "")
        assert answer.err == "error E050: tiles are measured on a GPU, and torch sees none here\n"

    def test_the_table(self):
        pytest.importorskip("torch")
        from spattn.cli.tune import lines
        from spattn.codegen.tile import Tile
        from spattn.gpu.tuning import Report, Trial
        from spattn.runtime.tuned import Tuned

        tall, short = Tile(128, 128, 8, 3), Tile(64, 32, 4, 2, registers=128, splits=4)
        trials = (Trial(0, tall, 20.04, None), Trial(0, short, 25.0, 22.22))
        assert list(lines(Tuned("GPU", (Report("forward", trials, (short,), 22.22),), 3.0))) == [
            "GPU: microseconds of a call, all passes; measured in 3.0 s",
            "attention",
            "pass 0                                                     predicted      measured",
            "  128 x 128, 8 warps, 3 stages                                  20.0   did not run",
            "  64 x 32, 4 warps, 2 stages, 128 registers, 4 splits           25.0          22.2  chosen",
        ]


class TestDiff:
    @pytest.mark.parametrize(
        ("first", "second", "relation"),
        [
            ("last(4)", "local(3, 0)", "equal"),
            ("last(4)", "causal", "subset"),
            ("causal", "last(4)", "superset"),
            ("causal", "anticausal", "different"),
        ],
    )
    def test_relations(self, spattnc, first, second, relation):
        answer = spattnc("diff", first, second, "--json")
        assert answer.json["relation"] == relation
        assert answer.status == (0 if relation == "equal" else 1)

    def test_a_witness(self, spattnc):
        answer = spattnc("diff", "last(3)", "last(w)", "--set", "w=4")
        assert answer.out.splitlines() == [
            "the first is a proper subset of the second",
            "in the second alone: q=3, k=0, kv_len=4",
        ]

    def test_a_binding_for_neither(self, spattnc):
        assert spattnc("diff", "last(3)", "last(4)", "--set", "w=4").status == 2


class TestLive:
    def test_in_words(self, spattnc):
        answer = spattnc(
            "live",
            "causal & (last(w) | sink(64))",
            *["--set", "w=4096", "--page-size", "16", "--at", "131072", "--why", "5"],
        )
        assert answer.status == 0
        assert answer.out.splitlines() == [
            "pattern     causal & (last(4096) | sink(64))",
            "live        k <= 63 or t <= k + 4095, with t tokens held and the next query at t",
            "for ever    k <= 63",
            "reach       4095: other live keys are at least t - 4095",
            "ring        4096 slots, for calls of 1 new at most",
            "pages       of 16 keys: j <= 3 or t <= 16*j + 4110",
            "at          131072 tokens: 4159 live, 64 of them for ever; 260 of 8192 pages",
            "why         key 5 of 131072 stays: query 131072 attends it",
        ]

    def test_key_heads_that_hold_the_same_are_one_part(self, spattnc):
        text = "heads([0:8, 12]) & causal | last(128)"
        answer = spattnc(
            "live",
            text,
            *["--heads", "32", "--kv-heads", "8", "--new", "4", "--rollback", "2", "--at", "500", "--why", "3"],
        )
        assert answer.out.splitlines() == [
            f"pattern     {text}",
            "",
            "kv heads    0-1, 3",
            "live        every key k, with t tokens held and the next query at t",
            "for ever    every key k",
            "at          500 tokens: 500 live, 500 of them for ever",
            "why         key 3 of 500 stays: query 500 of head 0 of 32 attends it",
            "",
            "kv heads    2, 4-7",
            "live        t <= k + 127, with t tokens held and the next query at t",
            "for ever    no key k",
            "reach       127: live keys are at least t - 127",
            "ring        133 slots, for calls of 4 new and 2 back at most",
            "at          500 tokens: 127 live, 0 of them for ever",
            "why         key 3 of 500 may go: no later query attends it",
        ]

    def test_no_ring_and_no_window(self, spattnc):
        assert "reach       none: live keys may be of any age, and no ring holds them" in (
            spattnc("live", "causal & where(q <= 2 * k)").out.splitlines()
        )
        assert "reach       0: there are no other live keys" in spattnc("live", "causal & sink(3)").out.splitlines()

    def test_what_was_assumed_is_said(self, spattnc):
        lines = spattnc("live", "documents(ids) & last(9)", "--at", "20", "--why", "15").out.splitlines()
        assert "why         key 15 of 20 stays: query 20 may attend it" in lines
        assert lines[-1] == "assumed     ids[q] == ids[k]: taken as true, so that fewer keys may be needed"

    def test_json(self, spattnc):
        answer = spattnc(
            "live", "last(8)", *["--at", "100", "--page-size", "4", "--why", "95", "--length", "1000", "--json"]
        )
        found = answer.json
        assert (found["schema"], found["decodable"], found["question"]["length"]) == ("spattn/live/1", True, 1000)
        [part] = found["parts"]
        assert (part["live"], part["forever"], part["reach"], part["slots"]) == ("t <= k + 7", "false", 7, 8)
        assert part["moment"] == {"tokens": 100, "keys": 7, "kept": 0, "pages": 2, "of_pages": 25}
        assert part["why"]["witness"]["q"] == 100

    def test_a_refusal_is_an_answer(self, spattnc):
        answer = spattnc("live", "causal & tail(3)", "--json")
        assert answer.status == 1
        assert answer.err.startswith("error E062: query 0 attends key 0 among 1 key, and not among 4")
        assert answer.json["decodable"] is False
        assert (answer.json["lengths"], answer.json["witness"]["q"]) == ([1, 4], 0)
        assert spattnc("live", "full").status == 1

    @pytest.mark.parametrize("arguments", ["--why 3", "--kv-heads 2", "--heads 3 --kv-heads 2", "--at 3 --why 3"])
    def test_numbers_that_do_not_fit(self, spattnc, arguments):
        answer = spattnc("live", "causal", *arguments.split())
        assert answer.status == 2
        assert answer.out == ""
        assert answer.err

    def test_without_isl(self, spattnc, monkeypatch):
        monkeypatch.setattr("spattn.relation.affine.available", False)
        assert spattnc("live", "last(12345)").status == 3


class TestAtoms:
    def test_the_table(self, spattnc):
        answer = spattnc("atoms")
        assert answer.status == 0
        for name in ("local(w, dilation=1)", "neighborhood", "bigbird"):
            assert name in answer.out

    def test_one(self, spattnc):
        assert spattnc("atoms", "mistral").out.splitlines()[1] == "  = last(w)"

    def test_json(self, spattnc):
        rows = spattnc("atoms", "--json").json["atoms"]
        assert {row["kind"] for row in rows} == {"atom", "word"}
        assert all(row["doc"] for row in rows)


class TestCache:
    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path, monkeypatch):
        from spattn.cache.store import Cache

        self.cache = Cache(tmp_path / "cache")
        monkeypatch.setattr("spattn.cache.store.default_cache", lambda: self.cache)

    def test_dir(self, spattnc):
        assert spattnc("cache", "dir").out == f"{self.cache.root}\n"

    def test_list_verify_clear(self, spattnc):
        path = self.cache.publish("x = 1\n")
        assert path.name in spattnc("cache", "list").out
        assert spattnc("cache", "verify").status == 0
        path.write_text("x = 2\n")
        answer = spattnc("cache", "verify", "--json")
        assert (answer.status, answer.json["paths"]) == (1, [str(path)])
        self.cache.publish("x = 3\n")
        assert spattnc("cache", "prune").status == 0
        assert spattnc("cache", "clear").status == 0
        assert self.cache.entries() == []


class TestDoctor:
    def test_what_is_here(self, spattnc):
        findings = {row["name"]: row for row in spattnc("doctor", "--json").json["findings"]}
        assert {"spattn", "python", "torch", "triton", "cache", "gpu"} <= findings.keys()

    def test_the_interpreter_s_pitfall(self, spattnc, monkeypatch):
        versions = {"triton": "3.6.0", "numpy": "2.4.1"}
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.setattr("spattn.analysis.health.installed", lambda name: versions.get(name, "1.0"))
        answer = spattnc("doctor")
        assert answer.status == 1
        assert "cannot interpret loops with NumPy 2.4.1" in answer.out

    @pytest.mark.parametrize("version", ["3.5.1", "3.10.0", "4.0.0"])
    def test_versions_that_nobody_tested(self, spattnc, monkeypatch, version):
        versions = {"triton": version, "torch": "2.15.1+cu130"}
        monkeypatch.setattr("spattn.analysis.health.installed", lambda name: versions.get(name, "1.0"))
        found = [row for row in spattnc("doctor", "--json").json["findings"] if row["name"] in versions]
        assert [(row["name"], row["level"]) for row in found] == [("torch", "ok"), ("triton", "note")]
        assert (
            found[1]["detail"] == f"triton {version} is not one of the versions that spattn is tested with, 3.6 to 3.9"
        )
        assert found[1]["hint"] == "pip install 'triton>=3.6,<3.10'"

    def test_nothing_installed(self, spattnc, monkeypatch):
        monkeypatch.setattr("spattn.analysis.health.installed", lambda name: None)
        answer = spattnc("doctor")
        assert answer.status == 0
        assert "pip install 'spattn[torch]'" in answer.out


def test_json_is_one_object_a_line(spattnc):
    for arguments in (
        ("check", "causal"),
        ("atoms", "full"),
        ("diff", "causal", "causal"),
        ("live", "causal"),
        ("cache", "dir"),
    ):
        [line] = spattnc(*arguments, "--json").out.splitlines()
        assert json.loads(line)["schema"].startswith("spattn/")
