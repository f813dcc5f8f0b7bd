"""Where the rows and keys of a call's batch entries stand and lie: of all together, or of each by its own lengths."""

from __future__ import annotations

from dataclasses import dataclass

from spattn.call.request import Request


@dataclass(frozen=True)
class Span:
    """Rows and keys of all batch entries, or of one.

    Attributes:
        q_offset: Position of the first row.
        k_offset: Position of the first key that is given and in the whole.
        kv_len: Keys of the whole.
        first_row, q_len: The rows, as they lie in q.
        first_key, num_keys: Those keys, as they lie in k.
        entry: The batch entry; None for all.
    """

    q_offset: int
    k_offset: int
    kv_len: int
    first_row: int
    q_len: int
    first_key: int
    num_keys: int
    entry: int | None = None

    @property
    def given(self) -> tuple[int, int]:
        """Positions of the keys, half-open."""
        return self.k_offset, self.k_offset + self.num_keys

    @property
    def rows(self) -> slice:
        """The rows in q."""
        return slice(self.first_row, self.first_row + self.q_len)

    @property
    def keys(self) -> slice:
        """The keys in k."""
        return slice(self.first_key, self.first_key + self.num_keys)


def spans_of(request: Request) -> list[Span]:
    """Spans that have keys: one of all entries, or where tensors say what each has (so that the host waits) of each."""
    at = request.positions
    if at.by_request:
        values = {name: request.tensors[name].tolist() for name in at.by_request}
        found = [_span(request, values, entry) for entry in range(request.batch_size)]
    else:
        found = [Span(at.q_offset, at.k_offset, at.kv_len, 0, at.q_len, 0, at.num_keys)]
    return [one for one in found if one.num_keys]


def _span(request: Request, values: dict[str, list[int]], entry: int) -> Span:
    at = request.positions
    first_row, q_len = _extent(values, entry, "q_lens", "cu_seqlens_q", at.q_len)
    first_key, num_keys = _extent(values, entry, "kv_lens", "cu_seqlens_k", at.num_keys)
    k_offset = _offset(values, entry, "k_offset", at.said.k_offset, 0)
    kv_len = max(_offset(values, entry, "kv_len", at.said.kv_len, k_offset + num_keys), 0)
    q_offset = _offset(values, entry, "q_offset", at.said.q_offset, kv_len - q_len)
    before = min(max(-k_offset, 0), num_keys)
    inside = max(min(kv_len - k_offset, num_keys) - before, 0)
    return Span(q_offset, k_offset + before, kv_len, first_row, q_len, first_key + before, inside, entry)


def _extent(values: dict[str, list[int]], entry: int, lengths: str, ends: str, whole: int) -> tuple[int, int]:
    """(first, count) of an entry's rows or keys in the tensor that holds them."""
    if ends in values:
        first, stop = values[ends][entry : entry + 2]
        return first, stop - first
    return 0, values[lengths][entry] if lengths in values else whole


def _offset(values: dict[str, list[int]], entry: int, name: str, said: int | None, usual: int) -> int:
    """What a tensor says of an entry, or a number of all."""
    if name in values:
        return values[name][entry if len(values[name]) > 1 else 0]
    return usual if said is None else said
