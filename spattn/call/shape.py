"""A call without its tensors: what decides who serves it, by which plan and with which tiles. Torch is not needed."""

from __future__ import annotations

from spattn.call.positions import keys_inside
from spattn.errors import ArgumentError
from spattn.expressions.frozen import frozen

ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
"""Bytes of an element, of each dtype that is served."""
SHORT = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}


@frozen
class Shape:
    """A call's sizes, as `Request` has them.

    Attributes:
        kv_len: Keys of the whole, given or not.
        q_offset: Position of the first query among the keys.
        k_offset: Position of the first key that is given.
        num_keys: How many are given.
        dtype: Of q, k, v and out, a name in `ITEMSIZE`.
        tf32: May float32 products use TF32?
    """

    batch_size: int
    num_q_heads: int
    num_kv_heads: int
    q_len: int
    kv_len: int
    q_offset: int
    k_offset: int
    num_keys: int
    head_dim: int
    v_head_dim: int
    dtype: str
    tf32: bool = False

    @property
    def given(self) -> tuple[int, int]:
        """Positions of the given keys that are of the whole, half-open."""
        return keys_inside(self.k_offset, self.num_keys, self.kv_len)

    @property
    def group_size(self) -> int:
        """Query heads that share one of k and v."""
        return self.num_q_heads // max(self.num_kv_heads, 1)

    @property
    def itemsize(self) -> int:
        """Bytes of an element of q, k, v and out."""
        return ITEMSIZE[self.dtype]

    @property
    def widest(self) -> int:
        """The wider of the two head dimensions."""
        return max(self.head_dim, self.v_head_dim)


def dtype_name(dtype: object) -> str:
    """The name of torch's dtype, of a dtype's name or of its short name: "bfloat16" of "bf16".

    Raises:
        ArgumentError: E060, it is not served.
    """
    name = str(dtype).removeprefix("torch.")
    name = SHORT.get(name, name)
    if name not in ITEMSIZE:
        raise ArgumentError("E060", f"q is {dtype}; float16, bfloat16, float32 and float64 are served")
    return name
