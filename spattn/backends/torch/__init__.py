"""The torch backend: attention along a layout in PyTorch, on any device, differentiable."""

from spattn.backends.torch.function import forward

__all__ = ["forward"]
