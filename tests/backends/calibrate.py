"""The rates of tiles from measurements: `python -m tests.backends.calibrate` prints the lines of `cost/rates.py`.

Least squares of the relative error, a tile at a time. What a workload has in common with itself under every tile (its
data, the clock of its run) is taken out first, since it decides nothing between tiles.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spattn.codegen.tile import Tile
from spattn.compiler import compile_pattern
from spattn.cost.prediction import INDIRECT, REPAIR, RESUMED, predict
from spattn.cost.rates.table import Rates
from spattn.cost.rates.triton import TABLE
from spattn.cost.sizes import LONG_WALK, Sizes
from spattn.cost.work import Work, Workload
from spattn.layout.ir import Pass
from spattn.machine.device import H200

DATA = json.loads((Path(__file__).parent / "data" / "h200.json").read_text())
KEPT = 0.85  # of a workload's own error that is taken out
LEAST = 0.5  # microseconds of a program, whatever least squares say
ROUNDS = 30


@dataclass(frozen=True)
class Run:
    """One pass of one measured run."""

    workload: str
    one: Pass
    place: int
    sizes: Sizes
    tile: Tile
    microseconds: float

    @property
    def name(self) -> str:
        return f"{self.workload}, pass {self.place}"

    @property
    def work(self) -> Work:
        return Workload(self.one, self.sizes, (self.tile.block_m,)).work(self.tile)


def sizes_of(workload: dict[str, Any]) -> Sizes:
    """The sizes of a measured call."""
    heads, length = workload["heads"], workload["length"]
    return Sizes(
        q_len=length,
        kv_len=length,
        first=0,
        count=workload["batch"] * heads,
        group=heads // workload["kv_heads"],
        head_dim=workload["head_dim"],
        itemsize=2,
        listed=workload.get("listed", LONG_WALK),
    )


def tile_of(numbers: list[int]) -> Tile:
    """From the sides, warps, stages, registers, splits, and whether partial tiles have a loop of their own."""
    *first, peeled = numbers
    return Tile(*first, peeled=bool(peeled))


def runs() -> list[Run]:
    """All that was measured of passes that are planned so today."""
    found = []
    for run in DATA["runs"]:
        workload = DATA["workloads"][run["workload"]]
        layout = compile_pattern(workload["pattern"]).layout()
        passes = enumerate(zip(layout.passes, run["us"], strict=False))
        sizes, tile = sizes_of(workload), tile_of(run["tile"])
        found += [Run(run["workload"], one, i, sizes, tile, us) for i, (one, us) in passes]
    return found


def _row(run: Run, resident: int) -> tuple[list[float], float]:
    """The shares of (program, step, mask) in a run that its programs' sum decides, and what is left for them."""
    work = run.work
    slow = INDIRECT if work.indirect and resident == 1 else 1.0
    rest = run.microseconds - REPAIR * work.repairs - RESUMED * work.resumed / H200.processors
    each = work.programs / H200.processors
    return [each, each * work.steps * slow, each * work.partial * slow], rest


def _is_sum(run: Run) -> bool:
    """Do many programs share the device? Else the longest is measured."""
    work = run.work
    return work.programs > 4 * H200.processors and work.longest < 16 * work.steps


def _solved(rows: list[list[float]], wanted: list[float]) -> tuple[float, ...]:
    """The least squares, none below 0."""
    matrix, right = np.array(rows), np.array(wanted)
    best, error = (0.0, 0.0, 0.0), np.inf
    for count in (1, 2, 3):
        for some in map(list, itertools.combinations(range(3), count)):
            found = np.zeros(3)
            found[some] = np.linalg.lstsq(matrix[:, some], right, rcond=None)[0]
            left = float(((matrix @ found - right) ** 2).sum())
            if (found >= 0).all() and left < error:
                best, error = tuple(found), left
    return best


def fitted() -> dict[tuple[int, int], dict[Tile, Rates]]:
    """The rates of each tile of the table that was measured."""
    groups: dict[tuple[tuple[int, int], Tile], list[Run]] = defaultdict(list)
    for run in runs():
        key = (2, run.sizes.head_dim)
        if run.tile in TABLE[key] and _is_sum(run):
            groups[key, run.tile].append(run)
    parts = {}
    for (key, tile), members in groups.items():
        rates = TABLE[key][tile]
        resident = predict(members[0].work, tile, rates, H200, key[0] * key[1]).resident
        parts[key, tile] = [_row(run, resident) for run in members]
    bias: dict[str, float] = defaultdict(float)
    result: dict[tuple[int, int], dict[Tile, Rates]] = defaultdict(dict)
    for _ in range(ROUNDS):
        errors = defaultdict(list)
        for (key, tile), members in groups.items():
            shares = [[part / rest for part in row] for row, rest in parts[key, tile]]
            wanted = [1 + bias[run.name] for run in members]
            floor = [want - LEAST * row[0] for want, row in zip(wanted, shares, strict=True)]
            program, step, mask = _solved(shares, floor)
            program += LEAST
            for run, row in zip(members, shares, strict=True):
                errors[run.name].append(float(np.dot(row, (program, step, mask))) - 1)
            numbers = round(program, 2), round(step, 3), round(step + mask, 3)
            result[key][tile] = Rates(*numbers, TABLE[key][tile].registers)
        bias = defaultdict(float, {name: KEPT * float(np.mean(found)) for name, found in errors.items()})
    return result


def main() -> None:
    """Prints the table."""
    for key, rates in fitted().items():
        print(f"    {key}: {{")
        for tile, found in rates.items():
            more = f", {tile.registers}" * bool(tile.registers) + ", peeled=True" * tile.peeled
            head = f"{tile.block_m}, {tile.block_n}, {tile.num_warps}, {tile.num_stages}{more}"
            numbers = f"{found.program:.2f}, {found.full:.3f}, {found.partial:.3f}, {found.registers}"
            print(f"        Tile({head}): Rates({numbers}),")
        print("    },")


if __name__ == "__main__":
    main()
