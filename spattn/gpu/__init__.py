"""Generated kernels on a GPU: their inputs, launches, replay, derivatives, tuning. It knows no kernel language."""
