"""`SparseAttention`: a pattern as a module of torch.

It is its pattern's text and a few options: what is compiled from them copies and pickles as this text, and modules that
are alike share it. So it is copied, moved and saved like any module; sinks are the only weights that it may have.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from spattn.attend import Attention, compile
from spattn.errors import ArgumentError
from spattn.frontend.reserved import refuse_dropout
from spattn.pattern import Pattern


class SparseAttention(torch.nn.Module):
    """Exact attention over the pairs of a pattern.

    Args:
        pattern: The language's text, or a Pattern.
        layer: The layer that `layers(..)` asks about.
        score: What becomes of scale * (q . k) before the mask, such as "softcap(30)"; its tensors are given at each
            call.
        backend: "triton", "torch", or "auto": the first that can serve a call, by call.
        scale: Of the scores, a number or a tensor of one, a parameter for instance; 1/sqrt(head_dim) by default.
        sinks: How many query heads have a learnable sink each, the parameter `sinks`, 0 at first; or these sinks
            themselves, a tensor `[num_q_heads]`. None for none.
        tf32: Let float32 products use TF32; else they are IEEE.
        tune: Measure which tiles are fastest, at the first call of each kind on a GPU.
        bindings: Integers for names in the pattern; other names stay free and are given as tensors at each call.

    Attributes:
        pattern: The pattern's text, names and layer bound.
        attention: What runs: its `explain`, its layout, its generated source.

    Raises:
        ArgumentError: E060, sinks is no number of heads.
        PatternError: The text is no pattern.
        BindError: A binding is of the wrong kind or not in the pattern.
        UnsupportedError: There is no such backend, and no dropout.

    >>> SparseAttention("local(256) | global([0, cls])", cls=7)
    SparseAttention('local(256) | global([0, 7])')
    """

    def __init__(
        self,
        pattern: str | Pattern,
        *,
        layer: int | None = None,
        score: str | None = None,
        backend: str = "auto",
        scale: float | torch.Tensor | None = None,
        sinks: int | torch.Tensor | None = None,
        tf32: bool = False,
        tune: bool = False,
        **bindings: float,
    ) -> None:
        super().__init__()
        refuse_dropout(bindings)
        made = compile(pattern, layer=layer, backend=backend, score=score, tf32=tf32, tune=tune, **bindings)
        self.pattern, self.score = str(made.pattern), made.score
        self.backend, self.scale, self.tf32, self.tune = backend, scale, tf32, tune
        self.attention = _compiled(self.pattern, self.score, backend, tf32, tune)
        self.sinks = _learnable(sinks) if isinstance(sinks, int) else sinks

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        sinks: torch.Tensor | None = None,
        **arguments: Any,
    ) -> Any:
        """softmax(scale * q k^T) v over the pattern's pairs, differentiable.

        Args:
            q: `[batch, num_q_heads, q_len, head_dim]`, any strides, last dimension dense.
            k: `[batch, num_kv_heads, kv_len, head_dim]`; num_q_heads is a multiple of num_kv_heads.
            v: `[batch, num_kv_heads, kv_len, v_head_dim]`.
            sinks: In place of the module's.
            arguments: Others of `spattn.Attention`, but for scale: return_lse, positions and lengths, prepared, the
                pattern's free names.

        Returns:
            out `[batch, num_q_heads, q_len, v_head_dim]` in q's dtype, and with `return_lse` the natural-log lse in
            float32, `[batch, num_q_heads, q_len]`.

        Raises:
            ArgumentError: Shapes, dtypes or devices do not fit.
            BindError: A tensor is missing or one too many.
            UnsupportedError: The backend cannot serve this; the message says why.
        """
        return self.attention(q, k, v, scale=self.scale, sinks=self.sinks if sinks is None else sinks, **arguments)

    def extra_repr(self) -> str:
        """The pattern, and the options that are not as usual."""
        usual = {"score": None, "backend": "auto", "scale": None, "tf32": False, "tune": False}
        options = {name: getattr(self, name) for name in usual if getattr(self, name) != usual[name]}
        if self.sinks is not None:
            options["sinks"] = self.sinks.numel()
        return ", ".join([repr(self.pattern), *(f"{name}={value!r}" for name, value in options.items())])


def _learnable(heads: int) -> torch.nn.Parameter:
    if isinstance(heads, bool) or heads < 1:
        hint = "give the number of query heads, or a tensor [num_q_heads]"
        raise ArgumentError("E060", f"sinks={heads} is no number of heads", hint=hint)
    return torch.nn.Parameter(torch.zeros(heads))


@lru_cache(maxsize=256)
def _compiled(pattern: str, score: str | None, backend: str, tf32: bool, tune: bool) -> Attention:
    return compile(pattern, score=score, backend=backend, tf32=tf32, tune=tune)
