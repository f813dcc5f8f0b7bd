"""The torch backend: attention along a layout in PyTorch, on any device, differentiable."""

from spattn.backends.torch.function import attention

__all__ = ["attention"]
