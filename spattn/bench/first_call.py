"""The process that `startup.py` starts: the first answer of one peer on one workload, timed, as a line of JSON.

`python -m spattn.bench.first_call WORKLOAD LENGTH PEER DEVICE`
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from contextlib import suppress

import torch

from spattn.bench.case import Case
from spattn.bench.machine import dtype_of
from spattn.bench.options import Options
from spattn.bench.peers.roster import roster
from spattn.bench.timing import once
from spattn.bench.workloads.selection import selected


def first_call(workload: str, length: int, peer: str, device: torch.device) -> dict[str, float]:
    """Milliseconds of planning, of the first answer from the start, and of the second call."""
    [one] = selected([workload], [length])
    key, _, backend = peer.partition(" ")
    [chosen] = roster(Options(peer=key, backend=backend), device).of(one)
    case = Case(one, device, dtype_of(device))
    inputs = case.inputs
    _ = case.mask
    once(lambda: torch.zeros(1, device=device), device)
    begin = time.perf_counter()
    prepared = chosen.prepare(case)
    planning = (time.perf_counter() - begin) * 1e3
    with torch.no_grad(), prepared.within():
        first = once(lambda: prepared.attend(*inputs), device)
        second = once(lambda: prepared.attend(*inputs), device)
    building = planning - (prepared.again_ms or 0.0)  # a mask that is built twice was needed once
    return {"planning_ms": building, "first_ms": building + first, "second_ms": second}


if __name__ == "__main__":
    for library in ("triton", "spattn.runtime.execution"):
        with suppress(ImportError):
            importlib.import_module(library)
    name, tokens, short_name, where = sys.argv[1:]
    print(json.dumps(first_call(name, int(tokens), short_name, torch.device(where))))
