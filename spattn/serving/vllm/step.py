"""A step as the layers of vLLM are told of it: its tensors, and numbers that are known without a look at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spattn.errors import UnsupportedError


@dataclass(frozen=True)
class StepMetadata:
    """Which tokens are new, and where the others lie. Its tensors are vLLM's own: a graph reads them anew.

    Attributes:
        num_actual_tokens: New tokens of all requests.
        max_query_len: No request has more.
        query_start_loc: int32 `[requests + 1]`: new tokens of request b are loc[b] .. loc[b+1]-1.
        seq_lens: int32 `[requests]`, tokens of each request with its new ones; 0 of one that pads the batch.
        block_table: int32 `[requests, max_blocks]`.
        slot_mapping: int64 `[tokens]`, where new tokens are written.
    """

    num_actual_tokens: int
    max_query_len: int
    query_start_loc: Tensor
    seq_lens: Tensor
    block_table: Tensor
    slot_mapping: Tensor

    @classmethod
    def of(cls, common: Any) -> StepMetadata:
        """Of vLLM's `CommonAttentionMetadata`; no number of a tensor is read.

        Raises:
            UnsupportedError: E061, rows attend keys after them.
        """
        if common.causal is not True:
            raise UnsupportedError("E061", "the step is not causal, and its keys are computed one after the other")
        return cls(
            common.num_actual_tokens,
            common.max_query_len,
            common.query_start_loc,
            common.seq_lens,
            common.block_table_tensor,
            common.slot_mapping,
        )
