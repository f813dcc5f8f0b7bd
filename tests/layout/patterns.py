"""Hand-picked patterns with tensors that fit: each atom, each index map, each kind of guard."""

from __future__ import annotations

from typing import Any

import numpy as np

from spattn.frontend.meaning import free_names
from spattn.frontend.syntax import Node

PICKED = {
    "full": "full",
    "none": "none",
    "causal": "causal",
    "anticausal": "anticausal",
    "window": "local(5, 2)",
    "dilated": "last(6, dilation=4)",
    "strided": "strided(8) | last(5)",
    "headers": "columns([::16]) & causal | last(6)",
    "headers_wide": "local(9) | columns([::16])",
    "global": "local(3) | global([0, 5, -1])",
    "global_many": "last(4) | global([0, 3, 9, 17, 18, 19, 33, 34, 40, 47, 48, 50, 55, -1, -2, -7])",
    "global_tensor": "local(3) | global(tokens)",
    "chunk": "chunk(10, back=1) & causal",
    "chunk_ahead": "chunk(7, 1, 1)",
    "fixed": "fixed(16, 3) & causal",
    "fixed_wide": "fixed(12, 2)",
    "prefix": "prefix(11) | causal",
    "sink": "sink(3) | last(9)",
    "tail": "tail(6) | local(2)",
    "blockwise": "blockwise(8, local(1) | global([0, -1]))",
    "random": "random(2, block=8, seed=3) | local(4)",
    "random_past": "random(2, block=8, past=true) & causal",
    "documents": "documents(ids) & causal",
    "documents_full": "documents(ids)",
    "within": "within(ids, sink(2) | local(5))",
    "within_last": "within(ids, last(7)) | sink(2)",
    "within_not": "~within(ids, last(7))",
    "segments": "documents(segments(cu)) & causal",
    "within_segments": "within(segments(cu), sink(2) | local(5))",
    "two_sides": "documents(segments(q_cu), ids)",
    "within_two_sides": "within(segments(q_cu), segments(cu), last(5))",
    "within_two_sides_not": "~within(segments(q_cu), segments(cu), last(5)) - sink(3)",
    "valid": "valid(lengths) & local(8)",
    "blocks": "blocks(table, size=8) & causal",
    "blocks_window": "blocks(table, size=16) | last(4)",
    "lists": "listed_blocks(lists, size=8) & causal",
    "lists_window": "last(4) - listed_blocks(lists, size=16)",
    "draft": "draft(ancestors, depth, (last(9) | sink(2)) & causal)",
    "draft_not": "causal - draft(ancestors, depth, chunk(8))",
    "na2d": "neighborhood(grid=[6, 9], kernel=[3, 5])",
    "na2d_cut": "neighborhood(grid=[7, 8], kernel=3, border=cut)",
    "na2d_dilated": "neighborhood(grid=[7, 8], kernel=3, dilation=2)",
    "rows": "rows([::7]) | last(4)",
    "rows_only": "rows([::7])",
    "diagonals": "diagonals([0, 5, 11])",
    "where": "where(t[q] <= t[k]) & causal",
    "where_plain": "where((q * 3 + k) % 5 < 2)",
    "where_head": "local(4) & where((k + h) % 3 == b)",
    "heads": "heads([0]) & local(3) | heads([1]) & strided(4) & causal",
    "complement": "~local(6)",
    "difference": "causal - columns([::4]) - random(1, block=8)",
    "difference_lists": "causal - columns([0, 3, 9]) | rows([2, 8])",
    "two_strides": "strided(6) | strided(4) & causal",
    "tiny_blocks": "random(1, block=1) | local(2)",
    "blocks_of_two": "local(9) - random(3, block=2)",
    "two_tables": "(local(2) | random(3, block=5)) & random(2, block=8)",
    "random_rows": "(local(1) | rows([0, 4])) & (random(2, block=8) | last(2))",
    "negative_queries": "anticausal | rows([:])",
    "bigbird": "local(4) | global([0, 1]) | random(2, block=8)",
}


def tensors(node: Node, kv_len: int, batch: int = 1, *, sorted_ids: bool = True) -> dict[str, Any]:
    """Arrays for the free names of `node`; with dimensions for batch entries where there are several."""
    random = np.random.default_rng(7)
    entries = (batch,) if batch > 1 else ()
    ids = random.integers(0, 4, (*entries, kv_len))
    known = {
        "ids": np.sort(ids) if sorted_ids else ids,
        "cu": np.sort([2, 9, 9, kv_len // 2 + 5, kv_len - 1, kv_len - 1, kv_len - 1]),
        "q_cu": np.asarray([0, 5, 8, 8, 13, 60]),
        "lengths": random.integers(0, kv_len + 1, batch) if batch > 1 else np.asarray(kv_len * 2 // 3),
        "table": random.integers(0, 2, (*entries, *(1 for _ in entries), 6, 6)).astype(np.bool_),
        "lists": np.asarray([[3, 0, 2, 5], [1, 1, -1, -1], [0, -1, -1, -1], [2, 1, 3, -1]])[None, None],
        "ancestors": np.asarray([0b1, 0b11, 0b101, 0b1101, 0b10011]),
        "depth": np.asarray([0, 1, 1, 2, 2]),
        "tokens": np.asarray([2, 2, -1, kv_len + 4, 7]),
        "t": random.integers(0, 9, max(kv_len, 1)),
    }
    return {name: known[name] for name in free_names(node)}
