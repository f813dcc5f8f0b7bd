"""`python -m spattn.bench`: the command `spattnc bench` where Typer is not installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spattn.bench.options import HELP, TIMES, Device, Direction, Options
from spattn.errors import MissingDependencyError, SpattnError

OK, NO, USAGE, MISSING, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit statuses, those of `spattnc`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; its exit status."""
    given = vars(_parser().parse_args(arguments))
    options = Options(**{**given, "names": tuple(given["names"])})
    from spattn.bench.program import run

    try:
        return OK if run(options) else NO
    except SpattnError as error:
        print(f"error {error}", file=sys.stderr)
        return MISSING if isinstance(error, MissingDependencyError) else USAGE
    except ModuleNotFoundError as error:
        print(f"error E050: this needs {error.name}, which is not installed", file=sys.stderr)
        return MISSING
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spattn.bench", description="spattn beside its peers, in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=HELP["names"])
    for name in ("length", "tuned", "peer", "backend", "batch", "stored", "numbers", "new"):
        parser.add_argument(f"--{name}", default="", help=HELP[name])
    for name in ("variants", "building", "startup", "ragged"):
        parser.add_argument(f"--{name}", action="store_true", help=HELP[name])
    for name, kind in (("direction", Direction), ("device", Device)):
        usual: Any = getattr(Options(), name)
        parser.add_argument(f"--{name}", type=kind, default=usual, choices=list(kind), help=HELP[name])
    parser.add_argument("--times", type=_positive, default=TIMES, help=HELP["times"])
    parser.add_argument("--budget", type=float, metavar="SECONDS", help=HELP["budget"])
    for name in ("json", "plot", "draw"):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=HELP[name])
    parser.add_argument("--list", action="store_true", dest="listing", help=HELP["listing"])
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help=HELP["output"])
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
