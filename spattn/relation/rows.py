"""The rows of one head and batch entry of a call, and their keys between cuts and periods.

The work follows the rows, not the pairs, and memory is that of a chunk of rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spattn.expressions.algebra import substitute_bool
from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.nodes import FALSE, Bool, Expr, Int, Truth
from spattn.expressions.tensors import Tensors
from spattn.relation.keys import Cut, NoForm, Stair, atom_period, comparisons, cuts, is_periodic, row_keys

ROWS = 2**14  # of a chunk: its arrays stay in the second-level cache
MAX_TABLE = 2**24  # cells of a table of residues
MAX_PERIODIC = 6  # comparisons that repeat in k; each assignment of truth values is a case


@dataclass(frozen=True)
class Rows:
    """The rows of one head and batch entry of a call.

    Attributes:
        first: Position of the first query.
        env: Values of `h`, `b`, `kv_len`, `num_heads`, `batch_size`.
    """

    first: int
    q_len: int
    kv_len: int
    env: Mapping[str, Any]
    tensors: Tensors

    def chunks(self, size: int) -> Iterator[slice]:
        """Rows in portions of `size`."""
        return (slice(begin, min(begin + size, self.q_len)) for begin in range(0, self.q_len, max(size, 1)))


@dataclass(frozen=True)
class KeyForm:
    """A condition without lists and tables: cuts, periodic comparisons, and what is left under each of their values.

    Attributes:
        cases: (truth values of `periodic`, the condition under them), the false ones left out.
        period: A common period in k.
        keys: What determines a row's periodic comparisons.
    """

    cuts: tuple[Cut, ...]
    periodic: tuple[Bool, ...]
    cases: tuple[tuple[tuple[bool, ...], Bool], ...]
    period: int
    keys: tuple[Expr, ...]

    @staticmethod
    def of(condition: Bool, kv_len: int) -> KeyForm:
        """The form of a condition.

        Raises:
            NoForm: It has none.
        """
        atoms = comparisons(condition)
        periodic = tuple(atom for atom in atoms if is_periodic(atom))
        if len(periodic) > MAX_PERIODIC:
            raise NoForm
        ends = dict.fromkeys(cut for atom in atoms if atom not in periodic for cut in cuts(atom))
        cases = []
        for values in itertools.product((False, True), repeat=len(periodic)):
            case = substitute_bool(condition, dict(zip(periodic, map(Truth, values), strict=True)))
            cases += [(values, case)] if case != FALSE else []
        keys = dict.fromkeys(key for atom in periodic for key in row_keys(atom))
        # no residue comes twice where the period passes the length
        period = min(math.lcm(1, *map(atom_period, periodic)), kv_len + 1)
        return KeyForm(tuple(cut for cut in ends if cut != Int(0)), periodic, tuple(cases), period, tuple(keys))

    def add_to(self, total: IntArray, rows: Rows) -> None:
        """Adds the keys of each row."""
        if not self.cases:
            return
        for part in rows.chunks(ROWS):
            total[part] += self.counts(rows.first + np.arange(part.start, part.stop), rows)

    def counts(self, q: IntArray, rows: Rows) -> IntArray:
        """Keys of the rows at positions q."""
        env = {**rows.env, "q": q[:, None]}
        limit = np.full((len(q), 1), rows.kv_len, np.int64)
        ends = [np.clip(np.broadcast_to(_position(cut, env, rows), limit.shape), 0, limit) for cut in self.cuts]
        edges = np.sort(np.concatenate([np.zeros_like(limit), *ends, limit], axis=1), axis=1)
        begin, end = edges[:, :-1], edges[:, 1:]
        result = np.zeros(len(q), np.int64)
        residues = _Residues.of(self, env, rows) if self.periodic else None
        for values, condition in self.cases:
            held = evaluate(condition, {**env, "k": begin}, rows.tensors)
            size = end - begin if residues is None else residues.between(values, begin, end)
            result += (held * size).sum(1)
        return result


def _position(cut: Cut, env: Mapping[str, Any], rows: Rows) -> IntArray:
    """The cut at the rows of `env`."""
    if isinstance(cut, Stair):
        return cut.position(evaluate(cut.bound, env, rows.tensors))
    return evaluate(cut, env, rows.tensors)


@dataclass(frozen=True)
class _Residues:
    """The truth values of the periodic comparisons over one period, for each group of rows that share them.

    Attributes:
        group: Of each row, `[rows, 1]`.
        code: Truth values as bits, `[groups, period]`.
    """

    group: IntArray
    code: IntArray
    period: int

    @staticmethod
    def of(keys: KeyForm, env: Mapping[str, Any], rows: Rows) -> _Residues:
        """The residues of the rows `env["q"]`, `[rows, 1]`."""
        q = env["q"]
        label = np.zeros(len(q), np.int64)
        for key in keys.keys:
            value = np.broadcast_to(evaluate(key, env, rows.tensors), q.shape)[:, 0]
            _, label = np.unique(label * (int(np.ptp(value)) + 1) + value - value.min(), return_inverse=True)
        _, example, group = np.unique(label, return_index=True, return_inverse=True)
        if len(example) * keys.period > MAX_TABLE:
            raise NoForm
        local = {**env, "q": q[example], "k": np.arange(keys.period)[None, :]}
        code = np.zeros((len(example), keys.period), np.int64)
        for bit, atom in enumerate(keys.periodic):
            code |= evaluate(atom, local, rows.tensors).astype(np.int64) << bit
        return _Residues(group[:, None], code, keys.period)

    def between(self, values: Sequence[bool], begin: IntArray, end: IntArray) -> IntArray:
        """How many keys of `begin .. end-1` give the comparisons these truth values."""
        hits = self.code == sum(value << bit for bit, value in enumerate(values))
        before = np.zeros((len(hits), self.period + 1), np.int64)
        np.cumsum(hits, axis=1, out=before[:, 1:])
        return self._upto(before, end) - self._upto(before, begin)

    def _upto(self, before: IntArray, k: IntArray) -> IntArray:
        whole, rest = np.divmod(k, self.period)
        return np.asarray(whole * before[self.group, -1] + before[self.group, rest])
