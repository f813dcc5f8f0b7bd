"""`spattnc bench`: spattn beside its peers; `python -m spattn.bench` is the same without Typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spattn.bench.options import HELP, TIMES, Device, Direction, Options
from spattn.cli.exits import no

NAMES = Annotated[list[str] | None, typer.Argument(metavar="NAME", help=HELP["names"], show_default=False)]


def bench(
    names: NAMES = None,
    variants: Annotated[bool, typer.Option("--variants", help=HELP["variants"])] = False,
    length: Annotated[str, typer.Option("--length", help=HELP["length"])] = "",
    direction: Annotated[Direction, typer.Option("--direction", help=HELP["direction"])] = Direction.FORWARD,
    tuned: Annotated[str, typer.Option("--tuned", metavar="NAMES", help=HELP["tuned"])] = "",
    peer: Annotated[str, typer.Option("--peer", metavar="NAMES", help=HELP["peer"])] = "",
    backend: Annotated[str, typer.Option("--backend", metavar="NAMES", help=HELP["backend"])] = "",
    building: Annotated[bool, typer.Option("--building", help=HELP["building"])] = False,
    startup: Annotated[bool, typer.Option("--startup", help=HELP["startup"])] = False,
    batch: Annotated[str, typer.Option("--batch", metavar="NUMBERS", help=HELP["batch"])] = "",
    stored: Annotated[str, typer.Option("--stored", metavar="NAMES", help=HELP["stored"])] = "",
    numbers: Annotated[str, typer.Option("--numbers", metavar="NAMES", help=HELP["numbers"])] = "",
    new: Annotated[str, typer.Option("--new", metavar="NUMBERS", help=HELP["new"])] = "",
    ragged: Annotated[bool, typer.Option("--ragged", help=HELP["ragged"])] = False,
    times: Annotated[int, typer.Option("--times", min=1, help=HELP["times"])] = TIMES,
    budget: Annotated[float | None, typer.Option("--budget", metavar="SECONDS", help=HELP["budget"])] = None,
    device: Annotated[Device, typer.Option("--device", help=HELP["device"])] = Device.AUTO,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help=HELP["json"])] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help=HELP["plot"])] = None,
    draw: Annotated[Path | None, typer.Option("--draw", metavar="FILE", help=HELP["draw"])] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help=HELP["output"])] = None,
    listing: Annotated[bool, typer.Option("--list", help=HELP["listing"])] = False,
) -> None:
    """Set spattn beside its peers, in one run. Answers are checked first; exit status 1 where one is wrong."""
    options = Options(**{**locals(), "names": tuple(names or ())})
    from spattn.bench.program import run

    if not run(options):
        raise no()
