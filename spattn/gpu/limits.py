"""What the generated kernels serve, whatever the machine. Torch is not needed."""

from __future__ import annotations

from spattn.call.shape import Shape

MAX_HEAD_DIM = 256


def beyond(shape: Shape) -> str | None:
    """Why no kernel serves such a call, as a sentence; None if one does."""
    if shape.dtype == "float64":
        return "the kernels serve float16, bfloat16 and float32, not float64"
    if shape.widest > MAX_HEAD_DIM:
        return f"head dimensions go up to {MAX_HEAD_DIM}, not {shape.widest}"
    return None
