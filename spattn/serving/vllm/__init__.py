"""vLLM: an attention backend that computes a model's pattern over its paged cache.

`register` is the entry point of vLLM's group of general plugins. It names the backend and imports nothing of it: vLLM
does when a model asks for CUSTOM. `backend.py` is what vLLM sees; `layers.py`, `step.py` and `blocks.py` know tensors
and numbers alone, and run without it.
"""

from __future__ import annotations

BACKEND = "spattn.serving.vllm.backend.PatternBackend"


def register() -> None:
    """Makes the backend known to vLLM as CUSTOM."""
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    register_backend(AttentionBackendEnum.CUSTOM, BACKEND)
