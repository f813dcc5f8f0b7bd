"""The rows of one head and batch entry of a call, and their keys between cuts and periods.

The work follows the rows, not the pairs, and memory is that of a chunk of rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from spattn.errors import UnsupportedError
from spattn.expressions.algebra import substitute, substitute_bool
from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.nodes import FALSE, Bool, Expr, Int, Mod, Node, Sym, Truth
from spattn.expressions.tensors import Tensors
from spattn.relation.keys import Cut, NoForm, Stair, atom_period, comparisons, cuts, is_periodic, row_keys, unshifted

ROWS = 2**14  # of a chunk: its arrays stay in the second-level cache
SMALL_TABLE = 2**12
MAX_TABLE = 2**24  # cells of a table of residues
MAX_WORK = 2**27  # cells of a count row by row; ten seconds or so
MAX_PERIODIC = 6  # comparisons that repeat in k; each assignment of truth values is a case


def too_long(what: str) -> UnsupportedError:
    """E097."""
    return UnsupportedError("E097", f"{what} takes too long", hint="try shorter lengths")


@dataclass(frozen=True)
class Rows:
    """The rows of one head and batch entry of a call.

    Attributes:
        first: Position of the first query.
        env: Values of `h`, `b`, `kv_len`, `num_heads`, `batch_size`.
        tables: Of comparisons that repeat in k, what all rows share.
    """

    first: int
    q_len: int
    kv_len: int
    env: Mapping[str, Any]
    tensors: Tensors
    tables: dict[tuple[Bool, ...], Any] = field(default_factory=dict, compare=False, repr=False)

    @overload
    def known(self, node: Bool) -> Bool: ...
    @overload
    def known(self, node: Expr) -> Expr: ...
    def known(self, node: Bool | Expr) -> Bool | Expr:
        """`node` with the call's numbers in place of their symbols."""
        numbers: dict[Node, Node] = {Sym(name): Int(int(value)) for name, value in self.env.items()}
        return substitute_bool(node, numbers) if isinstance(node, Bool) else substitute(node, numbers)

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
        shift: The periodic comparisons hold of k + shift in place of k: those of `strided(d)` are the same in all
            rows, counted from the row.
    """

    cuts: tuple[Cut, ...]
    periodic: tuple[Bool, ...]
    cases: tuple[tuple[tuple[bool, ...], Bool], ...]
    period: int
    keys: tuple[Expr, ...]
    shift: Expr

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
        shift: Expr = Int(0)
        period = math.lcm(1, *map(atom_period, periodic))
        if period <= max(kv_len, SMALL_TABLE):
            shift, periodic = unshifted(periodic)
        else:
            period = kv_len + 1  # no residue comes twice
        keys = dict.fromkeys(key for atom in periodic for key in row_keys(atom))
        return KeyForm(tuple(cut for cut in ends if cut != Int(0)), periodic, tuple(cases), period, tuple(keys), shift)

    def add_to(self, total: IntArray, rows: Rows) -> None:
        """Adds the keys of each row."""
        if not self.cases:
            return
        if self.work * -(-rows.q_len // ROWS) > MAX_WORK:
            raise too_long("counting the pairs of so many rows")
        for part in rows.chunks(ROWS):
            total[part] += self.counts(rows.first + np.arange(part.start, part.stop), rows)

    @property
    def work(self) -> int:
        """Cells that are looked at for a chunk of rows."""
        groups = math.prod(_values(key) for key in self.keys)
        return ROWS * (1 + len(self.cuts)) * len(self.cases) + (min(groups, ROWS) * self.period if self.keys else 0)

    def ends(self, q: IntArray, rows: Rows) -> IntArray:
        """The cuts of the rows at positions q, `[rows, cuts]`, where ever they are."""
        env = {**rows.env, "q": q[:, None]}
        found = np.empty((len(q), len(self.cuts)), np.int64)
        for column, cut in enumerate(self.cuts):
            found[:, column : column + 1] = _position(cut, env, rows)
        return found

    def counts(self, q: IntArray, rows: Rows) -> IntArray:
        """Keys of the rows at positions q."""
        env = {**rows.env, "q": q[:, None]}
        limit = np.full((len(q), 1), rows.kv_len, np.int64)
        ends = np.clip(self.ends(q, rows), 0, rows.kv_len)
        edges = np.sort(np.concatenate([np.zeros_like(limit), ends, limit], axis=1), axis=1)
        begin, end = edges[:, :-1], edges[:, 1:]
        result = np.zeros(len(q), np.int64)
        residues = _Residues.of(self, env, rows) if self.periodic and len(q) else None
        for values, condition in self.cases:
            held = evaluate(condition, {**env, "k": begin}, rows.tensors)
            size = end - begin if residues is None else residues.between(values, begin, end)
            result += (held * size).sum(1)
        return result


def _values(key: Expr) -> int:
    """How many values a key may have in a chunk of rows."""
    match key:
        case Mod(_, Int(d)):
            return d
    return ROWS


def _position(cut: Cut, env: Mapping[str, Any], rows: Rows) -> IntArray:
    """The cut at the rows of `env`."""
    if isinstance(cut, Stair):
        return cut.position(evaluate(cut.bound, env, rows.tensors))
    return evaluate(cut, env, rows.tensors)


@dataclass(frozen=True)
class _Residues:
    """The truth values of the periodic comparisons over one period, for each group of rows that share them.

    Attributes:
        group, shift: Of each row, `[rows, 1]`.
        table: What the groups share.
    """

    group: IntArray
    shift: IntArray
    table: _Table

    @staticmethod
    def of(keys: KeyForm, env: Mapping[str, Any], rows: Rows) -> _Residues:
        """The residues of the rows `env["q"]`, `[rows, 1]`."""
        q = env["q"]
        shift = np.broadcast_to(evaluate(keys.shift, env, rows.tensors), q.shape)
        if not keys.keys:
            # the same for all rows of the call
            table = rows.tables.get(keys.periodic) or _Table.of(keys, q[:1], env, rows)
            rows.tables[keys.periodic] = table
            return _Residues(np.zeros_like(q), shift, table)
        label = np.zeros(len(q), np.int64)
        for key in keys.keys:
            value = np.broadcast_to(evaluate(key, env, rows.tensors), q.shape)[:, 0]
            _, label = np.unique(label * (int(np.ptp(value)) + 1) + value - value.min(), return_inverse=True)
        _, example, group = np.unique(label, return_index=True, return_inverse=True)
        return _Residues(group[:, None], shift, _Table.of(keys, q[example], env, rows))

    def between(self, values: tuple[bool, ...], begin: IntArray, end: IntArray) -> IntArray:
        """How many keys of `begin .. end-1` give the comparisons these truth values."""
        return self._upto(values, end + self.shift) - self._upto(values, begin + self.shift)

    def _upto(self, values: tuple[bool, ...], k: IntArray) -> IntArray:
        before = self.table.before(values)
        whole, rest = np.divmod(k, before.shape[1] - 1)
        return np.asarray(whole * before[self.group, -1] + before[self.group, rest])


@dataclass(frozen=True)
class _Table:
    """Truth values of the periodic comparisons as bits, `[groups, period]`, and what was summed of them."""

    code: IntArray
    sums: dict[tuple[bool, ...], IntArray] = field(default_factory=dict)

    @staticmethod
    def of(keys: KeyForm, q: IntArray, env: Mapping[str, Any], rows: Rows) -> _Table:
        """The table of groups of which `q` are examples, `[groups, 1]`.

        Raises:
            NoForm: It would be too large.
        """
        if len(q) * keys.period > MAX_TABLE:
            raise NoForm
        local = {**env, "q": q, "k": np.arange(keys.period)[None, :]}
        code = np.zeros((len(q), keys.period), np.int64)
        for bit, atom in enumerate(keys.periodic):
            code |= evaluate(atom, local, rows.tensors).astype(np.int64) << bit
        return _Table(code)

    def before(self, values: tuple[bool, ...]) -> IntArray:
        """How many residues below each give the comparisons these truth values, `[groups, period + 1]`."""
        if values not in self.sums:
            hits = self.code == sum(value << bit for bit, value in enumerate(values))
            self.sums[values] = np.zeros((len(hits), hits.shape[1] + 1), np.int64)
            np.cumsum(hits, axis=1, out=self.sums[values][:, 1:])
        return self.sums[values]
