"""Importing this module tells torch of `spattn::fwd`, `bwd` and `bwd_bwd`: do it before `torch.export.load`."""

from __future__ import annotations

from functools import lru_cache

from spattn.attend import restored
from spattn.runtime import batching, derivatives, operators
from spattn.runtime.execution import Calls


@lru_cache(maxsize=256)
def _calls_of(plan: str) -> Calls:
    return restored(plan).calls()


operators.serve(_calls_of)
derivatives.register()
batching.register()
