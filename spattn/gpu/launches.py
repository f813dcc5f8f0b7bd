"""Launches in order, and the memory that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from spattn.gpu.kernel_launch import KernelLaunch, compile_together
from spattn.gpu.workspace import Workspace


@dataclass(frozen=True)
class Launches:
    """Launches on the tensors of a call; the regions of their workspace come after these."""

    each: Sequence[KernelLaunch]
    workspace: Workspace = field(default_factory=Workspace)

    @property
    def compiled(self) -> bool:
        """Has each kernel run before? Never where Triton interprets."""
        return all(one.kernel.compiled is not None for one in self.each)

    def run(self, tensors: list[torch.Tensor]) -> None:
        """Launches on the current stream; compiles what has not run yet."""
        if not self.each:
            return
        if self.compiled:
            self.again([tensor.data_ptr() for tensor in tensors], tensors[0].device)
            return
        tensors = tensors + self.workspace.tensors(self.workspace.allocate(tensors[0].device))
        compile_together(self.each, tensors)
        for one in self.each:
            one.first(tensors)

    def again(self, addresses: list[int], device: torch.device) -> None:
        """Launches what has been compiled, for tensors at these addresses."""
        buffer = self.workspace.allocate(device) if self.workspace.size else None
        if buffer is not None:
            addresses = addresses + self.workspace.addresses(buffer)
        stream = torch._C._cuda_getCurrentRawStream(device.index)
        for one in self.each:
            one.again(addresses, stream)
