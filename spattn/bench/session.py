"""`Session`: the sections of a run, one after the other; results are on disk as soon as they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from spattn.bench.building import LENGTHS, Building
from spattn.bench.case import Case
from spattn.bench.comparison import Comparison
from spattn.bench.deadline import Deadline
from spattn.bench.decode.group import DecodeGroup
from spattn.bench.decode.selection import is_decode
from spattn.bench.directions import directions
from spattn.bench.lengths import lengths
from spattn.bench.machine import device_of, dtype_of, machine
from spattn.bench.memory import release
from spattn.bench.options import Options
from spattn.bench.peers.roster import Roster, nobody, roster
from spattn.bench.records import Record, Result
from spattn.bench.spoken import say, spoken
from spattn.bench.startup import Startup
from spattn.bench.workloads.catalogue import FEW
from spattn.bench.workloads.selection import selected
from spattn.bench.workloads.workload import Workload
from spattn.files import replaced

CPU_LENGTHS = (2048,)
"""Where no length is asked for: what a CPU does of all pairs in seconds."""
STDOUT = Path("-")


@dataclass
class Session:
    """A run: who takes part in what, and what was found so far."""

    options: Options
    device: torch.device
    lengths: tuple[int, ...]
    workloads: Sequence[Workload]
    roster: Roster
    decode: DecodeGroup
    deadline: Deadline
    result: Result = field(default_factory=Result)

    @staticmethod
    def of(options: Options) -> Session:
        """The run that is asked for; nothing is measured yet.

        Raises:
            UnsupportedError: E041, a name is unknown; E061, there is no GPU.
            ArgumentError: E060, a length is none, or not one that a pattern has.
        """
        device = device_of(options.device)
        at = lengths(options.length) if options.length else ()
        names = _names(options)
        workloads = selected((name for name in names if not is_decode(name)), at or _usual(device))
        decode = DecodeGroup.of(filter(is_decode, names), options, device)
        peers = roster(options, device) if workloads or options.building or options.startup else nobody()
        deadline = Deadline(options.budget)
        absent = peers.absent | decode.roster.absent
        found = Result(machine(device), absent, left_out=deadline.left_out)
        return Session(options, device, at, workloads, peers, decode, deadline, found)

    def run(self) -> None:
        """All sections."""
        for name, why in self.result.absent.items():
            say(f"without {name}: {why}")
        for one in self.workloads:
            self._compare(one)
        self.decode.run(self.deadline, self.result.machine, self.add)
        if self.options.building:
            self._build()
        if self.options.startup:
            self._start()

    def add(self, record: Record) -> None:
        """Files a record, says it, writes it."""
        self.result.add(record)
        say(spoken(record))
        self.save()

    def save(self) -> None:
        """The results so far, if a file is asked for."""
        if self.options.json not in (None, STDOUT):
            replaced(self.options.json, self.result.to_json().encode())

    def _compare(self, one: Workload) -> None:
        if not self.deadline.allows(one.name):
            return
        case = Case(one, self.device, dtype_of(self.device))
        Comparison(case, self.roster.of(one), self.options.times, self.deadline, self.add).run(
            directions(self.options.direction)
        )
        self._forget()

    def _build(self) -> None:
        peers = list(self.roster.builders.values())
        at = self.lengths or LENGTHS[self.device.type]
        Building(self.device, dtype_of(self.device), peers, at, self.deadline, self.add).run(self._forget)

    def _start(self) -> None:
        workloads = selected(FEW, _usual(self.device))
        Startup(self.device, self.roster.builders, self.deadline, self.add).run(workloads)

    def _forget(self) -> None:
        self.roster.masks.forget()
        release(self.device)


def _usual(device: torch.device) -> tuple[int, ...]:
    return CPU_LENGTHS if device.type == "cpu" else ()


def _names(options: Options) -> tuple[str, ...]:
    """What to compare: the peers' workloads, unless something else is asked for."""
    names = (*options.names, *(["variants"] if options.variants else []))
    return names or (() if options.building or options.startup else ("peers",))
