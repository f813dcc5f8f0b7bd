"""A new process's way to its first answer: with empty caches, and with those that one before it left.

Each is a process of its own (`first_call.py`); the clock starts when torch, Triton and spattn are imported and the
device is awake.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import spattn
from spattn.bench.deadline import SPENT, Deadline
from spattn.bench.peers.peer import Peer
from spattn.bench.records import Outcome, Started
from spattn.bench.workloads.workload import Workload

CACHES = ("TRITON_CACHE_DIR", "SPATTN_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
"""Variables that say where kernels, generated source and torch's compiled code are kept."""
SECONDS = 300


@dataclass(frozen=True)
class Startup:
    """Peers, by their short names, on some workloads.

    Attributes:
        peers: By their short names.
        deadline: Asked before each pair of processes.
        report: Told of each record.
    """

    device: torch.device
    peers: Mapping[str, Peer]
    deadline: Deadline
    report: Callable[[Started], None]

    def run(self, workloads: Sequence[Workload]) -> None:
        """All of it."""
        for one in workloads:
            for key, peer in self.peers.items():
                self.report(self._started(key, Started(one.name, str(one.pattern), one.length, peer.name, peer.kind)))

    def _started(self, key: str, record: Started) -> Started:
        if not self.deadline.allows(f"starting {record.workload}, {record.peer}"):
            return replace(record, outcome=Outcome.LEFT_OUT, detail=SPENT)
        command = [record.workload, str(record.length), key, self.device.type]
        try:
            with TemporaryDirectory(prefix="spattn-bench-") as root:
                cold, warm = (_process(command, Path(root)) for _ in range(2))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            return replace(record, outcome=Outcome.FAILED, detail=_why(error))
        return replace(
            record,
            cold_ms=cold["first_ms"],
            warm_ms=warm["first_ms"],
            call_ms=warm["second_ms"],
            planning_ms=cold["planning_ms"],
        )


def _process(command: Sequence[str], caches: Path) -> dict[str, Any]:
    """What `first_call` says last."""
    done = subprocess.run(
        [sys.executable, "-m", "spattn.bench.first_call", *command],
        env=_environment(caches),
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _environment(caches: Path) -> dict[str, str]:
    """Ours, with caches of its own and the spattn that runs here."""
    home = str(Path(spattn.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return {**os.environ, **{name: str(caches / name.lower()) for name in CACHES}, "PYTHONPATH": path}


def _why(error: Exception) -> str:
    said = getattr(error, "stderr", None)
    lines = said.strip().splitlines() if isinstance(said, str) else []
    return lines[-1][:200] if lines else f"{type(error).__name__}: {str(error)[:200]}"
