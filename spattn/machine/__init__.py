"""The machines that kernels run on, or are compiled for: no torch, no Triton."""
