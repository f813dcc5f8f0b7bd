"""Runs on the CPU: what they write, what they say, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from spattn.bench.case import Case  # noqa: E402
from spattn.bench.peers.ours import Spattn  # noqa: E402
from spattn.bench.peers.peer import Prepared  # noqa: E402
from spattn.bench.records import Result  # noqa: E402
from spattn.bench.workloads.catalogue import WORKLOADS  # noqa: E402
from spattn.bench.workloads.workload import Workload  # noqa: E402
from spattn.errors import ArgumentError  # noqa: E402
from tests.bench.conftest import SMALL  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"


class TestMeasured:
    def test_both_directions(self, bench):
        answer = bench(SMALL, "--direction", "both")
        assert answer.status == 0
        found = answer.json
        assert found["schema"] == "spattn/bench/1"
        assert found["machine"]["dtype"] == "float32"
        rows = found["measured"]
        assert [row["peer"] for row in rows] == ["spattn", "masked SDPA", "row-block SDPA"] * 2
        assert [row["direction"] for row in rows] == ["forward"] * 3 + ["backward"] * 3
        for row in rows:
            assert row["outcome"] == "ok"
            assert row["ms"] > 0
            assert row["tflops"] > 0
            assert row["error"] < 1e-5
            assert row["pairs"] == 32 * 48 * 49 // 2
        assert all(row["difference"] < 1e-5 for row in rows if row["peer"] != "masked SDPA")
        assert Result.from_json(answer.path.read_text()).to_json() == answer.path.read_text()
        head, *lines = answer.out.partition("\n\n")[2].splitlines()
        assert head.split("  ")[0] == "milliseconds"
        assert [line.split("  ")[0] for line in lines] == [SMALL, f"{SMALL} backward"]

    def test_heads_that_share_and_heads_that_differ(self, bench):
        names = ("sw4096_64k_d128_gqa4@16", "heads_local_strided_16k_d64@24", "docs_64k_d128@32")
        answer = bench(*names, "--peer", "row-blocks,masked,cudnn", "--direction", "backward")
        assert answer.status == 0
        assert [row["outcome"] for row in answer.json["measured"]] == ["ok"] * 6
        assert answer.json["absent"] == {"cuDNN dense": "it runs on GPUs"}

    def test_json_instead_of_the_table(self, capsys):
        from spattn.bench.__main__ import main

        assert main([SMALL, "--device", "cpu", "--peer", "masked", "--times", "1", "--json", "-"]) == 0
        assert json.loads(capsys.readouterr().out)["measured"][0]["peer"] == "masked SDPA"


def off(prepared: Prepared) -> Prepared:
    return replace(prepared, attend=lambda *inputs: prepared.attend(*inputs) * 1.01)


class TestWrong:
    @pytest.mark.parametrize("direction", ["forward", "backward"])
    def test_a_wrong_answer_has_no_time(self, bench, monkeypatch, direction):
        right = Spattn.prepare
        monkeypatch.setattr(Spattn, "prepare", lambda self, case: off(right(self, case)))
        answer = bench(SMALL, "--direction", direction)
        assert answer.status == 1
        assert "NOT ALL ANSWERS ARE RIGHT" in answer.err
        ours, *others = answer.json["measured"]
        assert ours["outcome"] == "wrong"
        assert ours["ms"] is ours["tflops"] is None
        assert ours["error"] == pytest.approx(0.01, rel=0.1)
        assert [row["outcome"] for row in others] == ["ok", "ok"]
        assert "WRONG" in answer.out
        assert "against float64" in answer.out

    def test_what_samples_do_not_show(self, bench, monkeypatch):
        """A head between the first and the last is looked at by comparison with a rival only."""
        right = Spattn.prepare

        def attend(prepared: Prepared, *inputs: Any) -> Any:
            out = prepared.attend(*inputs).clone()
            out[:, 3] += 1
            return out

        def prepare(self: Spattn, case: Case) -> Prepared:
            found = right(self, case)
            return replace(found, attend=lambda *inputs: attend(found, *inputs))

        monkeypatch.setattr(Spattn, "prepare", prepare)
        answer = bench(SMALL)
        assert answer.status == 1
        assert answer.json["measured"][0]["outcome"] == "wrong"
        assert "differs from masked SDPA" in answer.out

    def test_not_a_number(self, bench, monkeypatch):
        right = Spattn.prepare

        def prepare(self: Spattn, case: Case) -> Prepared:
            found = right(self, case)
            return replace(found, attend=lambda *inputs: found.attend(*inputs) * float("nan"))

        monkeypatch.setattr(Spattn, "prepare", prepare)
        answer = bench(SMALL)
        assert answer.status == 1
        assert (answer.json["measured"][0]["outcome"], answer.json["measured"][0]["error"]) == ("wrong", None)

    def test_a_mask_that_is_another_set(self, bench, monkeypatch):
        one: Workload = replace(
            WORKLOADS["dense_causal_16k_d64"], mask=lambda at: lambda b, h, q, k: q > k - 2, by_head=True
        )
        monkeypatch.setitem(WORKLOADS, "dense_causal_16k_d64", one)
        answer = bench(SMALL, "--peer", "spattn,masked")
        assert answer.status == 1
        assert [row["outcome"] for row in answer.json["measured"]] == ["wrong", "ok"]

    def test_who_fails_is_named(self, bench, monkeypatch):
        def fail(self: Spattn, case: Case) -> Prepared:
            raise RuntimeError("out of luck\nand more")

        monkeypatch.setattr(Spattn, "prepare", fail)
        answer = bench(SMALL, "--peer", "spattn,masked")
        assert answer.status == 1
        assert "RuntimeError: out of luck (" in answer.out

    def test_no_gradient(self, bench, monkeypatch):
        right = Spattn.prepare

        def prepare(self: Spattn, case: Case) -> Prepared:
            found = right(self, case)
            return replace(found, attend=lambda *inputs: found.attend(*(x.detach() for x in inputs)))

        monkeypatch.setattr(Spattn, "prepare", prepare)
        answer = bench(SMALL, "--peer", "spattn,masked", "--direction", "backward")
        assert answer.status == 0
        assert [row["outcome"] for row in answer.json["measured"]] == ["no gradient", "ok"]


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("sw1024_16k_d12",), "did you mean 'sw1024_16k_d128'?"),
            (("unios",), "did you mean 'unions'?"),
            (("unions@4k",), "no workload is called 'unions'"),
            (("peers", "--peer", "spatn"), "did you mean 'spattn'?"),
            (("peers", "--tuned", "per"), "no workload is called 'per'"),
            (("peers", "--backend", "tritn"), "tritn"),
            (("peers", "--length", "4q"), "'4q' is no length"),
            (("--draw", "/no/such/file", "-o", "/no/such/folder/picture"), "/no/such/file"),
            (("--draw", "/no/such/file"), "-o FILE.png"),
        ],
    )
    def test_what_does_not_exist(self, bench, arguments, said):
        answer = bench(*arguments)
        assert answer.status == 2
        assert answer.out == ""
        assert answer.err.startswith("error")
        assert said in answer.err

    def test_no_gpu(self, capsys, monkeypatch):
        from spattn.bench.__main__ import main

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert main(["--device", "cuda"]) == 2
        assert "--device cpu" in capsys.readouterr().err

    def test_a_file_that_cannot_be_written_is_said_before_the_run(self, capsys, tmp_path):
        from spattn.bench.__main__ import main

        assert main([SMALL, "--device", "cpu", "--json", str(tmp_path / "none" / "f.json")]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "spattn: ok" not in captured.err

    def test_list(self, capsys):
        from spattn.bench.__main__ import main

        assert main(["--list"]) == 0
        listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert listed[: len(WORKLOADS)] == list(WORKLOADS)
        assert all(name.startswith("decode_") for name in listed[len(WORKLOADS) :])


class TestBudget:
    def test_nothing_is_begun_and_all_is_named(self, bench):
        answer = bench("peers", "--budget", "0", "--building", "--startup", "--length", "64")
        assert answer.status == 0
        found = answer.json
        assert found["measured"] == []
        for group in ("built", "started"):
            assert {row["outcome"] for row in found[group]} == {"left out"}
        assert len(found["left_out"]) == 12 + 2 * 3 + 2 * 3
        assert all(f"  {one}" in answer.out.splitlines() for one in found["left_out"])

    def test_the_rest_of_a_workload(self, bench, monkeypatch):
        from spattn.bench.deadline import Deadline

        monkeypatch.setattr(Deadline, "allows", lambda self, what: "masked" not in what)
        answer = bench(SMALL, "--peer", "row-blocks,masked")
        assert [row["outcome"] for row in answer.json["measured"]] == ["ok", "left out"]


class TestSections:
    def test_building(self, bench):
        answer = bench("--building", "--length", "64,128", "--peer", "spattn,row-blocks")
        assert answer.status == 0
        assert answer.json["measured"] == []
        rows = answer.json["built"]
        assert [(row["peer"], row["length"]) for row in rows[:4]] == [
            ("spattn", 64),
            ("row-block SDPA", 64),
            ("spattn", 128),
            ("row-block SDPA", 128),
        ]
        assert all(row["outcome"] == "ok" and row["length_ms"] is not None for row in rows)
        assert "building for a length" in answer.out

    def test_first_call(self):
        from spattn.bench.first_call import first_call

        found = first_call("sw1024_16k_d128", 32, "spattn torch", torch.device("cpu"))
        assert found["first_ms"] >= found["planning_ms"] > 0
        assert first_call("sw1024_16k_d128", 32, "masked", torch.device("cpu"))["second_ms"] > 0

    def test_startup(self, bench, monkeypatch):
        """The processes are others' business here: what each says is filed, and what it ends with."""
        said = iter([{"first_ms": 9.0, "second_ms": 1.0, "planning_ms": 2.0}] * 4)

        def process(command: list[str], caches: Path) -> dict[str, float]:
            if command[0].startswith("example"):
                raise subprocess.CalledProcessError(1, command, stderr="Traceback\nValueError: no")
            return next(said)

        monkeypatch.setattr("spattn.bench.startup._process", process)
        answer = bench("--startup", "--peer", "masked")
        first, second = answer.json["started"]
        assert (first["cold_ms"], first["warm_ms"], first["call_ms"], first["planning_ms"]) == (9.0, 9.0, 1.0, 2.0)
        assert (second["outcome"], second["detail"]) == ("failed", "ValueError: no")


class TestPicture:
    def test_from_json(self, bench, tmp_path):
        pytest.importorskip("matplotlib")
        answer = bench(SMALL, "--building", "--length", "64,128", "--peer", "spattn,masked")
        assert answer.status == 0
        data = answer.json
        same = {name: data["built"][0][name] for name in ("workload", "pattern", "length", "peer", "kind")}
        data["started"] = [{**same, "outcome": "ok", "cold_ms": 9.0, "warm_ms": 3.0, "from_the_future": 1}]
        source, target = tmp_path / "f.json", tmp_path / "f.png"
        source.write_text(json.dumps(data))
        assert bench("--draw", str(source), "-o", str(target)).status == 0
        assert target.read_bytes().startswith(PNG)

    @pytest.mark.parametrize("content", [b"{}", b"[1]", b"\x89PNG", b'{"schema": "spattn/bench/0"}', b"1"])
    def test_no_result(self, bench, tmp_path, content):
        pytest.importorskip("matplotlib")
        source = tmp_path / "f.json"
        source.write_bytes(content)
        answer = bench("--draw", str(source), "-o", str(tmp_path / "f.png"))
        assert answer.status == 2
        assert "error E035" in answer.err

    def test_nothing_to_draw(self):
        pytest.importorskip("matplotlib")
        from spattn.bench.pictures.picture import picture

        with pytest.raises(ArgumentError, match="nothing in this result"):
            picture(Result())

    def test_matplotlib_is_missed_before_the_run(self, bench, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        answer = bench(SMALL, "--plot", str(tmp_path / "f.png"))
        assert answer.status == 3
        assert "pip install 'spattn[viz]'" in answer.err
        assert answer.out == ""


def test_neither_typer_nor_rich_nor_matplotlib_is_needed():
    code = (
        "import sys\n"
        "for name in ('typer', 'rich', 'click', 'matplotlib'): sys.modules[name] = None\n"
        "import spattn.bench\n"
        "from spattn.bench.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "peers", "--device", "cpu", "--budget", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stdout
