"""Conditions on heads and batch entries alone: they part a launch into groups, each planned for its own pattern.

Inside of a document they are the same as outside: its frame moves q, k and kv_len, no head and no batch entry.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spattn.expressions.algebra import children, subexpressions, substitute_bool, symbols
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import Bool, InTable, Length, Member, Node, Read, SameSegment, Truth
from spattn.expressions.tensors import NOTHING

PAIR = {"h", "b", "num_heads", "batch_size"}


def pair_conditions(condition: Bool) -> tuple[Bool, ...]:
    """The largest parts of `condition` that depend on heads and batch entries alone, and on no tensor."""
    found: dict[Bool, None] = {}
    todo: list[Node] = [condition]
    while todo:
        node = todo.pop()
        if isinstance(node, Bool) and not isinstance(node, Truth) and _about_pairs(node):
            found[node] = None
        else:
            todo.extend(children(node))
    return tuple(found)


def _about_pairs(node: Bool) -> bool:
    names = symbols(node)
    return bool(names) and names <= PAIR and not any(map(_reads, subexpressions(node)))


def _reads(node: Node) -> bool:
    match node:
        case Member(_, tokens, _):
            return bool(tokens.tensors)
        case Read() | Length() | InTable() | SameSegment():
            return True
    return False


def specialised(condition: Bool, values: Mapping[Bool, bool]) -> Bool:
    """`condition` where conditions on pairs are known."""
    return substitute_bool(condition, {part: Truth(value) for part, value in values.items()})


def pair_groups(
    conditions: tuple[Bool, ...], batch_size: int, num_heads: int
) -> dict[tuple[bool, ...], NDArray[np.int64]]:
    """Truth values of `conditions` -> the pairs `b * num_heads + h` that have them."""
    pair = np.arange(batch_size * num_heads, dtype=np.int64)
    env = {"h": pair % num_heads, "b": pair // num_heads, "num_heads": num_heads, "batch_size": batch_size}
    columns = [np.broadcast_to(evaluate(part, env, NOTHING), pair.shape) for part in conditions]
    groups: dict[tuple[bool, ...], list[int]] = {}
    for i in pair:
        groups.setdefault(tuple(bool(column[i]) for column in columns), []).append(int(i))
    return {values: np.asarray(found, np.int64) for values, found in groups.items()}
