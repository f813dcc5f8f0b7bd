"""Rings: a cache of bounded memory. Keys that are kept for ever have slots of their own, all others take turns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spattn.errors import ArgumentError, UnsupportedError
from spattn.relation.liveness import Liveness
from spattn.relation.rings import Progression, progressions
from spattn.serving.storage import MOST, Scale, Storage, check_dense

SHAPE = "[batch, num_kv_heads, slots, head_dim]"
GAP = 1024  # positions between two spans: reading so many for nothing costs less than another call


class Ring(Storage):
    """Slots for the keys that a pattern can still need, and for no others.

    First come the slots of the keys that are kept for ever, then the `window` slots of all others, which take turns:
    position k lies in slot `window_base` + k % window.

    Args:
        k: `[batch, num_kv_heads, slots, head_dim]`, any strides, last dimension dense.
        v: `[batch, num_kv_heads, slots, v_head_dim]`.
        kv_lens: int32 `[batch]`: tokens that each request holds, changed in place.
        live: Which keys are needed: `Pattern.live()`.
        max_kv_len: No request will hold more tokens. It must be given where ever more keys are kept.
        rollback: Tokens that `kv_lens` may be taken back by.
        k_scale: A key is its stored number times this: a number, or float32 `[1]` or `[num_kv_heads]`.
        v_scale: The same of values.

    Attributes:
        window: Slots that take turns.
        window_base: The first of them.
        kept: int32 `[pieces, 5]`, rows (step, residue, first, count, base): position first + step * j, for
            0 <= j < count, lies in slot base + j. A position in several pieces lies in the first one's slot; residue is
            first % step.
        max_new: Calls may have so many new tokens at most.
        pieces: The same progressions, on the host.

    Raises:
        ArgumentError: E060, tensors do not fit each other, or there are too few slots.
        UnsupportedError: E061, E062, no ring holds these keys, or it would hold all of them.
    """

    def __init__(
        self,
        k: Tensor,
        v: Tensor,
        kv_lens: Tensor,
        live: Liveness,
        *,
        max_kv_len: int | None = None,
        rollback: int = 0,
        k_scale: Scale | None = None,
        v_scale: Scale | None = None,
    ) -> None:
        for name, x in (("k", k), ("v", v)):
            check_dense(name, x, SHAPE)
        self.pieces, capacity = _pieces(live, max_kv_len)
        super().__init__(k.transpose(1, 2), v.transpose(1, 2), kv_lens, k_scale, v_scale, capacity)
        if kv_lens.shape[0] != k.shape[0]:
            raise ArgumentError("E060", f"kv_lens has {kv_lens.shape[0]} requests, and k {k.shape[0]}")
        rows = _rows(self.pieces, capacity)
        self.window_base = sum(count for *_, count, _ in rows)
        self.window = k.shape[2] - self.window_base
        needed = live.slots(1, rollback)
        if self.window < needed:
            total = (
                f"{self.window_base + needed}: {self.window_base} for keys that are kept for ever, {needed} for others"
            )
            raise ArgumentError("E060", f"the ring has {k.shape[2]} slots, and needs {total}")
        self.live, self.rollback = live, int(rollback)
        self.max_new = self.window - needed + 1
        self.kept = torch.tensor(rows, dtype=torch.int32).reshape(-1, 5).to(k.device)

    @classmethod
    def allocate(
        cls,
        live: Liveness,
        *,
        batch: int,
        num_kv_heads: int,
        head_dim: int,
        max_kv_len: int,
        v_head_dim: int | None = None,
        max_new: int = 1,
        rollback: int = 0,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "cuda",
        k_scale: Scale | None = None,
        v_scale: Scale | None = None,
    ) -> Ring:
        """An empty ring with as many slots as are needed.

        Args:
            live: Which keys are needed: `Pattern.live()`.
            batch: Requests.
            num_kv_heads: Heads of keys and values.
            head_dim: Width of a head.
            max_kv_len: No request will hold more tokens.
            v_head_dim: Width of a head of values, as wide if not given.
            max_new: Calls have so many new tokens at most.
            rollback: Tokens that `kv_lens` may be taken back by.
            dtype: Of what is stored.
            device: Where.
            k_scale: As above.
            v_scale: As above.

        Raises:
            ArgumentError: E060, numbers do not fit each other.
            UnsupportedError: E061, E062, no ring holds these keys, or it would hold all of them.
        """
        pieces, capacity = _pieces(live, max_kv_len)
        slots = sum(count for *_, count, _ in _rows(pieces, capacity)) + live.slots(max_new, rollback)
        k, v = (
            torch.zeros(batch, num_kv_heads, slots, width, dtype=dtype, device=device)
            for width in (head_dim, v_head_dim or head_dim)
        )
        kv_lens = torch.zeros(batch, dtype=torch.int32, device=k.device)
        return cls(k, v, kv_lens, live, max_kv_len=max_kv_len, rollback=rollback, k_scale=k_scale, v_scale=v_scale)

    def places(self, request: int | Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks and slots of positions."""
        slots = self.window_base + positions % self.window
        for step, _, first, count, base in reversed(_rows(self.pieces, self.capacity)):
            place = (positions - first) // step
            inside = ((positions - first) % step == 0) & (place >= 0) & (place < count)
            slots = torch.where(inside, base + place, slots)
        return torch.zeros_like(positions) + request, slots

    def is_kept(self, positions: Tensor) -> Tensor:
        """Which positions have a slot of their own, bool."""
        return self.places(0, positions)[1] < self.window_base

    def held(self, request: int) -> Tensor:
        """The positions that are kept for ever, and the last ones, as many as no rollback has cost."""
        length = int(self.kv_lens[request])
        parts = [
            one.first + one.step * torch.arange(one.count(min(length, self.capacity)), device=self.device)
            for one in self.pieces
        ]
        parts.append(torch.arange(self._first_of_window(length), length, device=self.device))
        found: Tensor = torch.unique(torch.cat(parts))
        return found

    def spans(self, request: int) -> Sequence[tuple[int, int]]:
        """Ranges that hold the kept keys, and the window; near ones are one."""
        length = int(self.kv_lens[request])
        counts = ((one, one.count(min(length, self.capacity))) for one in self.pieces)
        found = [(one.first, one.first + one.step * (count - 1) + 1) for one, count in counts if count]
        found.append((self._first_of_window(length), length))
        result: list[tuple[int, int]] = []
        for first, stop in sorted(found):
            if result and first <= result[-1][1] + GAP:
                result[-1] = result[-1][0], max(stop, result[-1][1])
            else:
                result.append((first, stop))
        return result

    def kept_of(self, new: Tensor, positions: Tensor) -> Tensor:
        """Those that are kept for ever, and of the others the last ones: two do not share a slot."""
        return self.is_kept(positions) | (positions >= new - self.window)

    def _first_of_window(self, length: int) -> int:
        return max(0, length - self.window + self.rollback)


def _pieces(live: Liveness, max_kv_len: int | None) -> tuple[tuple[Progression, ...], int]:
    """What is kept for ever, and how many tokens a request may hold.

    Raises:
        UnsupportedError: E061, E062, there are too many pieces, or all keys are kept.
        ArgumentError: E060, it takes a greatest length.
    """
    if max_kv_len is not None and not (isinstance(max_kv_len, int) and 1 <= max_kv_len <= MOST):
        raise ArgumentError("E060", f"max_kv_len is a number from 1 to {MOST}, not {max_kv_len!r}")
    pieces = progressions(live.kept)
    tail = next((one for one in pieces if one.is_tail), None)
    if tail is not None:
        _refuse_tail(live, tail.first)
    endless = next((one for one in pieces if one.stop is None), None)
    if endless is not None and max_kv_len is None:
        which = f"every {endless.step}th key from {endless.first} on stays for ever"
        raise ArgumentError(
            "E060", f"{which}, and max_kv_len does not say how many", hint="Ring(.., max_kv_len=131072)"
        )
    length = MOST if live.length is None else live.length
    return pieces, min(length, MOST if max_kv_len is None else max_kv_len)


def _refuse_tail(live: Liveness, first: int) -> None:
    """Raises that a ring saves nothing, with a key that is still attended after a long time."""
    if live.note:
        raise UnsupportedError(
            "E062", f"a ring saves nothing: {live.note}", hint="keep the keys in a dense or paged cache"
        )
    far = first + (1 << 20) if live.length is None else live.length - 1
    seen = live.why(first, far) if first < far else None
    witness = "" if seen is None else f": query {seen.q} attends key {first}"
    every = "every key" if first == 0 else f"every key from {first} on"
    raise UnsupportedError(
        "E062", f"a ring saves nothing, {every} stays for ever{witness}", hint="keep the keys in a dense or paged cache"
    )


def _rows(pieces: Sequence[Progression], tokens: int) -> list[tuple[int, int, int, int, int]]:
    """(step, residue, first, count, base) of those pieces that have a position below `tokens`."""
    rows: list[tuple[int, int, int, int, int]] = []
    base = 0
    for one in pieces:
        count = one.count(tokens)
        if count:
            rows.append((one.step, one.first % one.step, one.first, count, base))
            base += count
    return rows
