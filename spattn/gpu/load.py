"""Generated text -> kernels. The text is run from its file: Triton asks that file for the source of each kernel."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=256)
def load(path: Path, text: str) -> dict[str, Any]:
    """The names that the module at `path`, whose contents are `text`, defines.

    Importing would trust a stale or planted `.pyc` beside the file; the text was checked against its digest.
    """
    namespace: dict[str, Any] = {"__name__": f"spattn_generated_{path.stem[:12]}", "__file__": str(path)}
    exec(compile(text, str(path), "exec"), namespace)  # noqa: S102  our own generated text, checked by its digest
    return namespace
