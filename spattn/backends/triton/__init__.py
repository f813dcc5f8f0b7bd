"""The Triton backend: generated kernels for NVIDIA (sm_80 and later) and AMD (gfx942) GPUs."""
