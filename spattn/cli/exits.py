"""How a command ends: its exit status, and what is said on stderr."""

from __future__ import annotations

import os
import sys
import traceback
from enum import IntEnum

import typer

from spattn.errors import MissingDependencyError, SpattnError


class Status(IntEnum):
    """Exit statuses; 130 and 141 are the shell's for Ctrl-C and a closed pipe."""

    OK = 0
    NO = 1
    USAGE = 2
    MISSING = 3
    INTERNAL = 70
    INTERRUPTED = 130
    PIPE = 141


LIBRARIES = {
    "torch": "pip install 'spattn[torch]'",
    "triton": "pip install 'spattn[triton]'",
    "matplotlib": "pip install 'spattn[viz]'",
    "islpy": "pip install islpy",
}


def no() -> typer.Exit:
    """The answer is no."""
    return typer.Exit(Status.NO)


def say(message: object) -> None:
    """A diagnostic on stderr."""
    print(message, file=sys.stderr)


def status_of(error: BaseException) -> int:
    """What an exception that left a command means; says it too."""
    match error:
        case SystemExit(code=code):
            return int(code) if isinstance(code, int) else Status.OK if code is None else Status.USAGE
        case SpattnError():
            say(f"error {error}")
            return Status.MISSING if isinstance(error, MissingDependencyError) else Status.USAGE
        case KeyboardInterrupt() | typer.Abort():
            return Status.INTERRUPTED
        case BrokenPipeError():
            return closed_pipe()
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] in LIBRARIES:
            library = name.partition(".")[0]
            say(f"error E050: this needs {library}, which is not installed\n  hint: {LIBRARIES[library]}")
            return Status.MISSING
        case OSError():
            say(f"error: {error}")
            return Status.USAGE
    return _usage(error) or _internal(error)


def closed_pipe() -> int:
    """Whoever reads has gone: nothing more is written, not even when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Status.PIPE


def _usage(error: BaseException) -> int:
    """The status of an error of the command line, 0 if it is none; Typer carries its own copy of Click."""
    show = getattr(error, "show", None)
    if show is None or not hasattr(error, "format_message"):
        return 0
    show()
    return int(getattr(error, "exit_code", Status.USAGE))


def _internal(error: BaseException) -> int:
    if os.environ.get("SPATTN_DEBUG"):
        traceback.print_exception(error)
    hint = "this is a fault of spattn; SPATTN_DEBUG=1 shows where"
    say(f"internal error: {type(error).__name__}: {error}\n  hint: {hint}")
    return Status.INTERNAL
