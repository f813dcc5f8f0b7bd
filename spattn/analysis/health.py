"""What is installed here and what stands in the way, found without running a kernel."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import util

from spattn._version import __version__
from spattn.cache.store import default_cache
from spattn.versions import TESTED, cure, installed, numbers, untested

LIBRARIES = {
    "numpy": "",
    "islpy": "pip install islpy: without it plans are coarser and nothing is proved",
    "sympy": "",
    "torch": "pip install 'spattn[torch]': without it nothing runs",
    "triton": "pip install 'spattn[triton]': without it nothing runs on a GPU",
    "matplotlib": "pip install 'spattn[viz]': without it there are no PNGs",
}


@dataclass(frozen=True)
class Finding:
    """One line of a report: `level` is ok, note, missing or broken."""

    name: str
    level: str
    detail: str
    hint: str = ""


def examined() -> list[Finding]:
    """Everything that is looked at."""
    return [*_versions(), *_interpreter(), *_gpu(), *_cache()]


def _versions() -> Iterator[Finding]:
    yield Finding("spattn", "ok", __version__)
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name, hint in LIBRARIES.items():
        version = installed(name)
        if version is None:
            yield Finding(name, "missing", "not installed", hint)
        elif name not in TESTED:
            yield Finding(name, "ok", version)
    for name in TESTED:
        yield from _tested(name, installed(name))


def _tested(name: str, version: str | None) -> Iterator[Finding]:
    if version is None:
        return
    outside = untested(name, version)
    if outside is None:
        yield Finding(name, "ok", f"{version} is one of the versions that are tested, {TESTED[name]}")
    else:
        yield Finding(name, "note", outside, cure(name))


def _interpreter() -> Iterator[Finding]:
    value = os.environ.get("TRITON_INTERPRET")
    if value is None:
        return
    if value != "1":
        yield Finding("interpreter", "note", f"TRITON_INTERPRET={value}: only 1 turns the interpreter on")
        return
    hint = "env -u TRITON_INTERPRET"
    yield Finding("interpreter", "note", "TRITON_INTERPRET=1: kernels are interpreted, slowly, and not bfloat16", hint)
    triton, numpy = installed("triton"), installed("numpy")
    if triton and numpy and numbers(triton) < (3, 7) and numbers(numpy) >= (2, 4):
        yield Finding(
            "interpreter",
            "broken",
            f"Triton {triton} cannot interpret loops with NumPy {numpy}",
            "pip install 'numpy<2.4', or a newer triton",
        )


def _gpu() -> Iterator[Finding]:
    if util.find_spec("torch") is None:
        yield Finding("gpu", "missing", "unknown without torch")
        return
    from spattn.runtime.devices import device_names

    names = device_names()
    for i, name in enumerate(names):
        yield Finding("gpu", "ok", f"{i}: {name}")
    if not names:
        yield Finding("gpu", "missing", "torch sees none: kernels can be emitted and compiled, not run")


def _cache() -> Iterator[Finding]:
    cache = default_cache()
    if cache.root is None or cache.mode == "off":
        why = "there is no home directory" if cache.root is None else "SPATTN_CACHE=off"
        yield Finding("cache", "note", f"none: {why}", "SPATTN_CACHE_DIR names a directory")
        return
    place = nearest(str(cache.root))
    writable = cache.mode == "rw" and os.access(place, os.W_OK | os.X_OK)
    entries = cache.entries()
    size = sum(entry.size for entry in entries)
    detail = f"{cache.root}, {cache.mode}, {len(entries)} entries, {size} bytes"
    if cache.mode == "rw" and not writable:
        yield Finding("cache", "note", f"{detail}: {place} cannot be written", "SPATTN_CACHE_DIR names another")
    else:
        yield Finding("cache", "ok", detail)


def nearest(path: str) -> str:
    """The path itself, or the first directory above it that exists."""
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path
