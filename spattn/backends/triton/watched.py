"""The pattern's own tensors, watched: is what was made of them still what they say?"""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch


class Watched:
    """Tensors as they are now. None is kept alive by it.

    Args:
        tensors: By name.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._known = tuple((name, weakref.ref(one), one._version) for name, one in tensors.items())

    def same(self, tensors: Mapping[str, object]) -> bool:
        """Are these the same tensors, unchanged?"""
        for name, source, version in self._known:
            one = source()
            if one is None or one is not tensors[name] or one._version != version:
                return False
        return True


def watchable(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Do they count their versions? Those of inference mode do not."""
    return not any(tensor.is_inference() for tensor in tensors.values())
