"""Versions of torch and Triton: said in one place, and pip asks for the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from spattn.versions import TESTED, untested

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_pip_asks_for_versions_that_are_supported() -> None:
    [triton], [torch] = EXTRAS["triton"], EXTRAS["torch"]
    assert triton == f"triton{TESTED['triton'].requirement}; sys_platform == 'linux'"
    # a newer torch is not refused: Triton's kernels do not depend on it
    assert torch == f"torch{TESTED['torch'].requirement.partition(',')[0]}"


@pytest.mark.parametrize(("name", "pins"), [("main", ("newest", "newest")), ("triton36", (None, "oldest"))])
def test_the_ends_of_the_range_are_what_tests_run_with(name: str, pins: tuple[str | None, str]) -> None:
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    found = dict(line.split("==") for line in lines)
    for library, end in zip(("torch", "triton"), pins, strict=True):
        version = found.get(library)
        assert (version is None) == (end is None)
        if version is not None and end is not None:
            major, minor, *_ = version.split(".")
            assert (int(major), int(minor)) == getattr(TESTED[library], end)


@pytest.mark.parametrize("version", ["3.6.0", "3.7.1", "3.9.0", "3.9.1.post2"])
def test_tested_versions(version: str) -> None:
    assert untested("triton", version) is None


@pytest.mark.parametrize("version", ["3.5.1", "3.10.0", "4.0.0"])
def test_a_triton_that_nobody_tested_is_refused_in_one_sentence(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    pytest.importorskip("torch")
    from spattn.backends import gpu as backend

    monkeypatch.setattr(triton, "__version__", version)
    backend.missing.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=rf"triton {re.escape(version)} is not one of the versions"):
            why = backend.missing()
        assert why is not None
        assert why.endswith("3.6 to 3.9: pip install 'triton>=3.6,<3.10'")
        assert backend.missing() == why
    finally:
        backend.missing.cache_clear()
