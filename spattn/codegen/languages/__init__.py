"""The languages that kernels are written in; of those that serve a pass the one at the least predicted time writes it.

A language is added in five places: its row here and the module that it names, its templates, its rates, and what it
lacks.
"""

from __future__ import annotations

from collections.abc import Iterable

from spattn.codegen.languages.language import Language
from spattn.codegen.languages.triton import TRITON
from spattn.layout.ir import Pass

LANGUAGES: dict[str, Language] = {"triton": TRITON}


def languages_of(backend: str) -> tuple[str, ...]:
    """Those that a backend's name allows: one of them, all for "auto", none for another."""
    return tuple(name for name in LANGUAGES if backend in ("auto", name))


def serving(one: Pass, kernel: str, names: Iterable[str]) -> list[str]:
    """Those of the languages that can write a kernel of a pass; `kernel` is the name of its kind."""
    return [name for name in names if LANGUAGES[name].refusal(one, kernel) is None]
