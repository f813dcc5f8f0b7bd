"""The workloads that a run is asked for, by their names and groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spattn.bench.lengths import lengths
from spattn.bench.workloads.catalogue import GROUPS, WORKLOADS
from spattn.bench.workloads.workload import Workload
from spattn.errors import UnsupportedError
from spattn.frontend.context import suggestion


def selected(names: Iterable[str], at: Sequence[int] = ()) -> list[Workload]:
    """The workloads of these names and groups, in their order, each once.

    Where lengths are given, each is taken at all of them, but for NAME@LENGTH, which says its own.

    Raises:
        UnsupportedError: E041, there is none of a name.
        ArgumentError: E060, one of them has no form at a length.
    """
    found = [one for name in names for one in _named(name, at)]
    for one in found:
        _ = one.pattern  # refused now, not in the middle of a run
    return list({one.name: one for one in found}.values())


def known(name: str, names: Iterable[str], what: str) -> str:
    """The name itself, if it is among the names.

    Raises:
        UnsupportedError: E041, it is not.
    """
    every = tuple(names)
    if name not in every:
        hint = suggestion(name, every) or ", ".join(every)
        raise UnsupportedError("E041", f"no {what} is called {name!r}", hint=hint)
    return name


def _named(name: str, at: Sequence[int]) -> Sequence[Workload]:
    base, mark, length = name.partition("@")
    if mark:
        return [WORKLOADS[known(base, WORKLOADS, "workload")].at(n) for n in lengths(length)]
    found = GROUPS.get(base) or [WORKLOADS[known(base, (*WORKLOADS, *GROUPS), "workload")]]
    return [one.at(n) for one in found for n in at] if at else found
