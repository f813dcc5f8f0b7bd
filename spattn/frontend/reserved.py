"""Names that a pattern gives to no integer and no tensor: the language's own, and the keywords of what takes patterns.

A call gives tensors by name beside its own arguments, so a tensor called `scale` could never be given.
"""

from __future__ import annotations

from collections.abc import Iterable

from lark import Token

from spattn.errors import UnsupportedError
from spattn.frontend.arithmetic import SYMBOLS
from spattn.frontend.context import Context

DROPOUT = ("dropout", "dropout_p")
CONSTANTS = ("inf", "true", "false")
KEYWORDS = frozenset(
    (
        *("self", "q", "k", "v", "pattern", "backend", "layer", "tf32", "tune", "score"),
        *("scale", "return_lse", "sinks", "prepared", "missing_keys", "dtype"),
        *("q_len", "kv_len", "q_lens", "kv_lens", "cu_seqlens_q", "cu_seqlens_k", "q_offset", "k_offset"),
        *("max_seqlen_q", "max_seqlen_k", "num_keys", "cache", "out", "shared_keys"),
        *DROPOUT,
        *("num_heads", "num_kv_heads", "batch_size", "head_dim", "v_head_dim", "head", "batch"),
    )
)
"""Of `compile`, `attention`, `Attention`, `Pattern`, `SparseAttention`, `Decoder`, and those that the contract adds."""


def refuse_dropout(names: Iterable[str]) -> None:
    """Refuses what other attention functions take, by its name.

    Raises:
        UnsupportedError: E061, dropout is asked for.
    """
    for name in DROPOUT:
        if name in names:
            hint = f"leave out {name}=, or apply torch.nn.functional.dropout to what attention gives"
            raise UnsupportedError(
                "E061", f"exact attention has no {name}: every pair of the pattern counts", hint=hint
            )


def is_reserved(context: Context, name: Token) -> bool:
    """Notes an error where an integer or a tensor has a name that is taken."""
    if name in SYMBOLS or name in CONSTANTS:
        context.fail("E027", f"{name!s} has a meaning of its own and names nothing else", name, "reserved")
    elif name in KEYWORDS:
        hint = f"choose another name, such as my_{name!s}"
        context.fail("E043", f"{name!s} is an argument of calls and no name for a pattern", name, "reserved", hint)
    else:
        return False
    return True
