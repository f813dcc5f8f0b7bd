"""`spattnc`: what spattn knows about a pattern, in a shell.

Results go to stdout, what is said about them to stderr. The commands import what they need when they run, so that
`spattnc --help` answers at once.
"""

from __future__ import annotations

from spattn.cli.app import main

__all__ = ["main"]
