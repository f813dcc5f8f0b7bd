"""Documents as the kernels read them: ids of each side's indices, and where an index's document ends on a side.

Made on the device without waiting for it; what a GPU holds is not checked, but no array points outside of its side.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from spattn.call.prepared import Prepared
from spattn.codegen.parameters import DocumentBounds
from spattn.expressions.documents import MISSING
from spattn.expressions.nodes import Documents
from spattn.gpu import derivations

ENDS = ("start", "stop", "run_start", "run_stop")
Lengths = Mapping[str, int]
"""How many indices each side has, "queries" and "keys"."""


def document_bounds(role: DocumentBounds, lengths: Lengths, prepared: Prepared) -> torch.Tensor:
    """int32 `[n]` or `[batch, n]`: an end of the document of each index; all ends are derived together."""
    documents, of, seen_from = role.documents, role.of, role.seen_from
    key = "document ends", documents, of, seen_from, *lengths.values()
    found = prepared.derived(key, documents.tensors, lambda: _ends(documents, of, seen_from, lengths, prepared))
    return found[ENDS.index(role.end)]


def document_ids(documents: Documents, side: str, lengths: Lengths, prepared: Prepared) -> torch.Tensor:
    """`[n]` or `[batch, n]`: equal on both sides where the document is one; the user's tensor if it can be."""
    key = "document ids", documents, side, lengths[side]
    return prepared.derived(key, documents.tensors, lambda: _ids(documents, side, lengths[side], prepared))


def _ids(documents: Documents, side: str, length: int, prepared: Prepared) -> torch.Tensor:
    written = documents.side(side)
    given = prepared[written.tensor]
    if written.cumulative:
        return derivations.segment_numbers(given, length, MISSING[side])(given)
    plain = given.view(torch.int8) if given.dtype == torch.bool else given
    if not plain.shape[-1]:  # no request reads it, and kernels clip what they read to what is there
        plain = plain.new_zeros((*plain.shape[:-1], 1))
    alike = len({prepared[name].dtype for name in documents.tensors}) == 1
    if alike and not documents.cumulative:
        return plain
    plain = plain.to(torch.int64)  # signed and unsigned ids would meet in one of their types
    # an id beside cumulative lengths is the number of a segment
    return torch.where(plain < 0, MISSING[side], plain) if documents.cumulative else plain


def _ends(documents: Documents, of: str, seen_from: str, lengths: Lengths, prepared: Prepared) -> torch.Tensor:
    """int32 `[4, .., n]`: the ends on side `of` of the documents of the indices of `seen_from`."""
    seen = document_ids(documents, seen_from, lengths, prepared)
    if documents.side(of).cumulative:
        starts = prepared[documents.side(of).tensor]
        return derivations.segment_ends(seen, starts, lengths[of])(seen, starts)
    ids = document_ids(documents, of, lengths, prepared)
    return derivations.document_ends(seen, ids, placed=documents.cumulative)(seen, ids)
