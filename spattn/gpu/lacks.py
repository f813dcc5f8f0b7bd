"""What kernels lack that the torch backend has: one table, from which refusals are told, each row a test that fails.

These are of calls that give lengths or offsets for each request: lists that are made for one length of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spattn.call.request import CompiledPattern, Request
from spattn.codegen.parameters import BlockLists, DocumentBounds, DocumentIds, Membership, Role
from spattn.expressions.algebra import subexpressions
from spattn.expressions.nodes import KV_LEN, Documents, ListedTable, RandomTable, Relative


@dataclass(frozen=True)
class Known:
    """What is known of a call.

    Attributes:
        framed: Does the pattern speak of positions within documents?
        longest: Does a number say how long the longest whole is?
        last: Does one say where the last row of any request stands?
    """

    framed: bool
    longest: bool
    last: bool


@dataclass(frozen=True)
class Lack:
    """A row of the table.

    Attributes:
        what: What the pattern reads, as the end of a sentence.
        holds: Is a kernel's tensor one of these, for a call of which this is known?
    """

    what: str
    holds: Callable[[Role, Known], bool]


def _documents(role: Role) -> Documents | None:
    """Those that a tensor is of."""
    return role.documents if isinstance(role, DocumentIds | DocumentBounds) else None


LACKS: Mapping[str, Lack] = {
    "within": Lack(
        "positions within documents, which end with the keys",
        lambda role, known: _documents(role) is not None and known.framed,
    ),
    "segments": Lack(
        "segments, and no number says how long the longest whole is",
        lambda role, known: (of := _documents(role)) is not None and of.cumulative and not known.longest,
    ),
    "tokens": Lack(
        "lists of tokens, and no number says how long the longest whole is",
        lambda role, known: isinstance(role, Membership) and (role.length != KV_LEN or not known.longest),
    ),
    "random": Lack(
        "random blocks, drawn among those of one length",
        lambda role, known: isinstance(role, BlockLists) and isinstance(role.table, RandomTable),
    ),
    "lists": Lack(
        "lists of blocks, and no number says which blocks there are at most",
        lambda role, known: (
            isinstance(role, BlockLists)
            and isinstance(role.table, ListedTable)
            and role.transposed
            and not (known.longest and known.last)
        ),
    ),
}
"""By name."""


def lacks(plans: CompiledPattern, request: Request) -> str | None:
    """What a request wants that kernels lack, as a sentence; a traced call is asked when its sizes are numbers."""
    by_request = request.positions.by_request
    if not by_request or not type(request.batch_size) is type(request.num_q_heads) is int:
        return None
    for values in plans.groups(request.batch_size, request.num_q_heads):
        for by_residue in (True, False):
            row = lacking(plans, values, by_residue, by_request)
            if row is not None:
                return f"{', '.join(by_request)} is given for each request, and the pattern reads {row.what}"
    return None


def lacking(
    plans: CompiledPattern,
    values: tuple[bool, ...],
    by_residue: bool,
    by_request: tuple[str, ...],
    *,
    gradients: bool = True,
) -> Lack | None:
    """The row of the table that a group of heads meets, if any."""
    condition = plans.layout_of(values, by_residue).condition
    framed = any(isinstance(part, Relative) for part in subexpressions(condition))
    longest = not {"k_offset", "kv_len"} & {*by_request}
    known = Known(framed, longest, last="q_offset" not in by_request)
    sources = [plans.module_of(values, by_residue)]
    if gradients:
        sources.append(plans.backward_module_of(values, by_residue))
    roles = [role for source in sources for one in source.passes for role in one.roles]
    return next((row for role in roles for row in LACKS.values() if row.holds(role, known)), None)
