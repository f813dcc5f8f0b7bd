"""Passes of one kind on the tensors of a call: what a launch plan is made for, and what tiles are chosen for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from spattn.call.request import Request
from spattn.call.shape import Shape
from spattn.codegen.kernel_specs import KernelSpec
from spattn.expressions.nodes import Tokens
from spattn.gpu.devices import described
from spattn.gpu.heads import Heads
from spattn.gpu.modules import Modules
from spattn.gpu.token_counts import token_counts
from spattn.layout.ir import Layout
from spattn.machine.device import Device


@dataclass(frozen=True)
class Problem:
    """Passes of one kind.

    Attributes:
        kind: What they compute.
        layout: The passes.
        modules: Their kernels.
        request: A call.
        heads: Whom they serve.
        languages: Which may be taken.
    """

    kind: KernelSpec
    layout: Layout
    modules: Modules
    request: Request
    heads: Heads
    languages: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """The call's sizes."""
        return self.request.shape

    @property
    def count(self) -> int:
        """(batch, head) pairs, of query heads or of key heads."""
        return self.heads.count

    @property
    def tokens(self) -> tuple[tuple[Tokens, int], ...]:
        """How long each list of tokens is that passes read."""
        sizes = {name: tensor.shape for name, tensor in self.request.tensors.items()}
        return token_counts(self.layout, sizes, self.request.kv_len)

    @property
    def rows(self) -> tuple[int, int]:
        """Positions, half-open."""
        at = self.request.positions
        return at.rows if self.kind.direction == "queries" else at.given

    @property
    def device(self) -> Device:
        """Where they run."""
        return described(self.request.q.device)

    @property
    def text(self) -> str:
        """The modules' sources: what tiles that were measured were measured for."""
        return "\n".join(self.modules.source(language).text for language in self.languages)

    @property
    def row_heads(self) -> int:
        """Heads that rows have."""
        return self.request.num_q_heads if self.kind.direction == "queries" else self.request.num_kv_heads

    @property
    def parts(self) -> tuple[tuple[int, torch.dtype], ...]:
        """What passes keep of a row: widths and dtypes."""
        known = {"HEAD_DIM": self.request.q.shape[-1], "V_HEAD_DIM": self.request.v.shape[-1], "": 1}
        narrow = torch.float32 if self.request.q.dtype == torch.float32 else torch.float16
        return tuple((known[part.width], narrow if part.scaled else torch.float32) for part in self.kind.parts)
