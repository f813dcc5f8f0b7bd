"""What every test process shares: a cache of its own, Hypothesis without clocks, markers that mean what they say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Processes of tests run side by side, one a core: threads of torch's, which wait for one another, take twice the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A machine that is busy is not a counter-example; a failure must be the same tomorrow.
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's cache."""
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATTN_CACHE_DIR", str(root))
        patch.delenv("SPATTN_CACHE", raising=False)
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that this process cannot run says so, instead of failing in the dark."""
    for item in items:
        for name, reason in _missing().items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


def _missing() -> dict[str, str]:
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return {
        **({} if interpreted else {"interpret": "needs TRITON_INTERPRET=1"}),
        **({"aot": "needs a process without TRITON_INTERPRET"} if interpreted else {}),
        **({} if _has_gpu() else {"gpu": "needs a CUDA device"}),
    }


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing with them")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares `text` with `golden/<name>` beside the test, or writes it with --update-golden."""

    def compare(name: str, text: str) -> None:
        path = request.path.parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        assert path.is_file(), f"{path} is missing: run pytest --update-golden and read what it wrote"
        assert path.read_text(encoding="utf-8") == text

    return compare
