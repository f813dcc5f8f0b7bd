"""The commands, and `main`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from spattn._version import __version__
from spattn.cli.atoms import atoms
from spattn.cli.bench import bench
from spattn.cli.cache import app as cache
from spattn.cli.check import check
from spattn.cli.diff import diff
from spattn.cli.doctor import doctor
from spattn.cli.emit import emit
from spattn.cli.exits import status_of
from spattn.cli.explain import explain
from spattn.cli.live import live
from spattn.cli.output import prepare, write
from spattn.cli.show import show
from spattn.cli.tune import tune
from spattn.cli.verify import verify

app = typer.Typer(
    name="spattnc",
    help="Compile sparse-attention patterns, and look at what they mean.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (emit, explain, live, show, check, verify, diff, tune, bench, atoms, doctor):
    app.command()(command)
app.add_typer(cache, name="cache")


def _version(wanted: bool) -> None:
    if wanted:
        write(f"spattnc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Compile sparse-attention patterns, and look at what they mean."""


def main() -> NoReturn:
    """The program."""
    sys.exit(status())


def status(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; its exit status."""
    prepare()
    try:
        code = app(arguments, prog_name="spattnc", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  whatever happens becomes a status
        return status_of(error)
    return int(code) if isinstance(code, int) else 0
