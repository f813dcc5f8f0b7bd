"""`Pattern`: what users hold. Its text, its algebra, its mask, and what can be proved and counted of it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spattn import oracle
from spattn.errors import ArgumentError, MissingDependencyError, PatternError, Span
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import Bool
from spattn.expressions.tensors import Tensors
from spattn.frontend import meaning as frontend
from spattn.frontend.drafts import settled
from spattn.frontend.parser import parse as parse_text
from spattn.frontend.syntax import Complement, Difference, Intersection, Node, Union
from spattn.layout import counting
from spattn.relation import emptiness, proofs
from spattn.relation.emptiness import EmptyRow
from spattn.relation.formula import Formula, formula
from spattn.relation.liveness import Liveness, heads_of, liveness
from spattn.relation.witness import Witness

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1
"""Of `to_dict`."""


@dataclass(frozen=True)
class Reason:
    """A term of the outermost union that admits a pair.

    Attributes:
        text: The term.
        span: Its place in `str(pattern)`.
    """

    text: str
    span: Span

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Pattern:
    """A set of allowed pairs (b, h, q, k), with its names bound or left free.

    Equality is that of the text; `equals` proves equality of the sets. A string may stand wherever a pattern may.

    Attributes:
        syntax: The pattern as written.
    """

    syntax: Node

    @classmethod
    def of(cls, pattern: str | Pattern, /, layer: int | None = None, **bindings: int) -> Pattern:
        """A pattern or its text as a pattern, names bound.

        Raises:
            PatternError: The text is no pattern.
            BindError: A binding is no integer, or the pattern has no such name.
        """
        if isinstance(pattern, Pattern) and layer is None and not bindings:
            return pattern
        return cls(parse_text(str(pattern) if isinstance(pattern, Pattern) else pattern, bindings, layer))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Pattern:
        """The pattern that `to_dict` wrote.

        Raises:
            PatternError: E035, written by another version of the format; or the text is no pattern.
        """
        if not isinstance(data, Mapping) or data.get("spattn") != SCHEMA:
            message = "this is no pattern that this version can read"
            raise PatternError("E035", message, hint=f'it looks like {{"spattn": {SCHEMA}, "pattern": "causal"}}')
        return cls.of(data.get("pattern", ""))

    def to_dict(self) -> dict[str, Any]:
        """The pattern as JSON data."""
        return {"spattn": SCHEMA, "pattern": str(self)}

    def __str__(self) -> str:
        return str(self.syntax)

    def __repr__(self) -> str:
        return f"Pattern({str(self)!r})"

    def __or__(self, other: str | Pattern) -> Pattern:
        return _joined(Union, self, other)

    def __ror__(self, other: str | Pattern) -> Pattern:
        return _joined(Union, other, self)

    def __and__(self, other: str | Pattern) -> Pattern:
        return _joined(Intersection, self, other)

    def __rand__(self, other: str | Pattern) -> Pattern:
        return _joined(Intersection, other, self)

    def __sub__(self, other: str | Pattern) -> Pattern:
        return _checked(Difference(self.syntax, Pattern.of(other).syntax))

    def __rsub__(self, other: str | Pattern) -> Pattern:
        return _checked(Difference(Pattern.of(other).syntax, self.syntax))

    def __invert__(self) -> Pattern:
        return Pattern(Complement(self.syntax))

    @property
    def condition(self) -> Bool:
        """What it means, over q, k, h, b and the lengths."""
        return frontend.meaning(self.syntax)

    @property
    def free_names(self) -> dict[str, str]:
        """The tensors that a call gives: name -> tokens, documents, blocks, lengths or tensor."""
        return frontend.free_names(self.syntax)

    def mask(
        self,
        q_len: int,
        kv_len: int,
        *,
        q_offset: int | None = None,
        k_offset: int = 0,
        num_keys: int | None = None,
        q_lens: Any = None,
        kv_lens: Any = None,
        num_heads: int = 1,
        batch_size: int = 1,
        **tensors: Any,
    ) -> Tensor:
        """The allowed pairs, dense.

        Args:
            q_len: Number of queries.
            kv_len: Number of keys of the whole.
            q_offset: Position of the first query; the last query stands at the last key where it is not given.
            k_offset: Position of the first key that is given.
            num_keys: How many keys are given, up to the last of the whole where it is not said.
            q_lens: How many rows each batch entry has, of q_len with padding; its last one stands at its last key.
            kv_lens: How many keys each batch entry has, of kv_len with padding: a whole of its own.
            num_heads: Number of query heads.
            batch_size: Number of batch entries.
            tensors: The free names, as tensors, arrays or lists.

        Returns:
            `[q_len, num_keys]`, or `[batch_size, num_heads, q_len, num_keys]` where heads or batch entries may differ,
            as they do with lengths of their own.

        Raises:
            ArgumentError: E060, a length is none, or lengths are not one a batch entry.
            BindError: A tensor is missing or one too many.
            UnsupportedError: E094, there are more pairs than a mask may have (`oracle.MAX_PAIRS`).
            MissingDependencyError: torch is not installed.
        """
        torch = _torch()
        _check_lengths(q_len, kv_len, num_heads, batch_size)
        if q_lens is None and kv_lens is None:
            at: dict[str, Any] = {"q_offset": q_offset, "k_offset": k_offset, "num_keys": num_keys}
            sizes = {"num_heads": num_heads, "batch_size": batch_size}
            allowed = oracle.mask(self.syntax, q_len, kv_len, tensors=tensors, **at, **sizes)
        else:
            if num_keys is not None:
                raise ArgumentError("E060", "num_keys is given, and kv_lens says how many keys an entry has")
            rows, keys = _lengths("q_lens", q_lens, q_len, batch_size), _lengths("kv_lens", kv_lens, kv_len, batch_size)
            entries = _placed(rows, keys, q_offset, k_offset)
            allowed = oracle.request_masks(self.syntax, q_len, kv_len, entries, num_heads=num_heads, tensors=tensors)
        result: Tensor = torch.from_numpy(allowed)
        return result

    def count(
        self,
        q_len: int,
        kv_len: int,
        *,
        q_offset: int | None = None,
        k_offset: int = 0,
        num_keys: int | None = None,
        num_heads: int = 1,
        batch_size: int = 1,
        **tensors: Any,
    ) -> int:
        """How many pairs the mask allows, without building it; arguments as those of `mask`.

        Raises:
            UnsupportedError: E097, counting would take too long.
        """
        self._check_call(q_len, kv_len, num_heads, batch_size, tensors)
        given = _given(kv_len, k_offset, num_keys)
        return counting.count(self.condition, q_len, kv_len, tensors, q_offset, num_heads, batch_size, given)

    def density(
        self,
        q_len: int,
        kv_len: int,
        *,
        q_offset: int | None = None,
        k_offset: int = 0,
        num_keys: int | None = None,
        num_heads: int = 1,
        batch_size: int = 1,
        **tensors: Any,
    ) -> float:
        """Allowed pairs over all pairs of rows and given keys; arguments as those of `mask`. Raises as `count` does."""
        self._check_call(q_len, kv_len, num_heads, batch_size, tensors)
        given = _given(kv_len, k_offset, num_keys)
        return counting.density(self.condition, q_len, kv_len, tensors, q_offset, num_heads, batch_size, given)

    def formula(self) -> Formula | None:
        """The number of pairs for q_len = kv_len = S.

        None where it depends on data or heads, has no such form, or takes too long to find.

        >>> print(Pattern.of("local(256)").formula())
        513*S - 65792  for S >= 256
        """
        return formula(self.condition)

    def live(
        self,
        *,
        num_heads: int | None = None,
        num_kv_heads: int | None = None,
        kv_head: int | None = None,
        length: int | None = None,
    ) -> Liveness:
        """Which keys later decode steps can still need, for every number of tokens: what a cache has to hold.

        Lists given at the call, tables, documents, random blocks and tests of tensors are taken as true: more keys may
        count as live than are needed, never fewer. `draft(.., A)` counts as A, of m drafted tokens with `rollback=m`
        where a step has fewer rows. `a | b` is what two layers need that share a cache.

        Args:
            num_heads: Number of query heads; any number where it is not given.
            num_kv_heads: Number of key heads, `num_heads` where it is not given.
            kv_head: The key head whose cache it is: what any of its query heads needs. All heads where not given.
            length: No query stands there or later; a call may grow without end where it is not given.

        Raises:
            NotDecodableError: E062, a row attends a key after it, or changes as the call grows; `.witness` is a pair.
            UnsupportedError: E062, a draft is cut or negated by what speaks of positions.
            ArgumentError: E060, heads do not fit each other, or `length` is no number of tokens.
            MissingDependencyError: islpy is not installed.

        >>> live = Pattern.of("causal & (last(256) | columns([::512]))").live()
        >>> live.forever, live.reach, live.slots(new=4)
        ('(k % 512) == 0', 255, 259)
        """
        condition = frontend.meaning(settled(self.syntax))
        return liveness(heads_of(condition, num_heads, num_kv_heads, kv_head), length)

    def why(
        self,
        q: int,
        k: int,
        *,
        kv_len: int,
        q_len: int | None = None,
        q_offset: int | None = None,
        head: int = 0,
        batch: int = 0,
        num_heads: int = 1,
        batch_size: int = 1,
        **tensors: Any,
    ) -> tuple[Reason, ...]:
        """The terms of the outermost union that admit a pair; none if the pair is not allowed.

        Args:
            q: The query's row, 0 .. q_len-1.
            k: The key.
            kv_len: Number of keys.
            q_len: Number of queries, kv_len where it is not given.
            q_offset: Position of row 0, as in `mask`.
            head: The query head.
            batch: The batch entry.
            num_heads: Number of query heads; at least head + 1.
            batch_size: Number of batch entries; at least batch + 1.
            tensors: The free names.

        Raises:
            ArgumentError: E060, there is no such row or key.
        """
        q_len = kv_len if q_len is None else q_len
        num_heads, batch_size = max(num_heads, head + 1), max(batch_size, batch + 1)
        self._check_call(q_len, kv_len, num_heads, batch_size, tensors)
        if not (0 <= q < q_len and 0 <= k < kv_len):
            raise ArgumentError("E060", f"there is no pair ({q}, {k}) among {q_len} queries and {kv_len} keys")
        first = kv_len - q_len if q_offset is None else q_offset
        env = {"q": first + q, "k": k, "h": head, "b": batch, "kv_len": kv_len, "q_offset": first}
        env |= {"num_heads": num_heads, "batch_size": batch_size}
        given = Tensors(tensors, kv_len, batch_size, num_heads, q_len)
        # parsed again, since spans are to be places in what `str` prints
        terms = frontend.disjuncts(parse_text(str(self)))
        holding = (term for term in terms if evaluate(frontend.meaning(term), env, given))
        return tuple(Reason(str(term), term.span or Span(0, 0)) for term in holding)

    def equals(self, other: str | Pattern) -> bool:
        """Are the pairs the same for all lengths, heads and tensors? Proved or refuted, never guessed.

        Raises:
            UnsupportedError: E096, neither was possible.
            MissingDependencyError: islpy is not installed.
        """
        return proofs.equals(self.condition, Pattern.of(other).condition)

    def contains(self, other: str | Pattern) -> bool:
        """Are all pairs of `other` allowed here? Raises as `equals` does."""
        return proofs.contains(self.condition, Pattern.of(other).condition)

    def difference_witness(self, other: str | Pattern) -> Witness | None:
        """A small call and a pair in exactly one of the two, None if they are equal. Raises as `equals` does."""
        return proofs.difference_witness(self.condition, Pattern.of(other).condition)

    def is_empty(self) -> bool:
        """Is no pair allowed, whatever the length? Raises as `equals` does."""
        return proofs.is_empty(self.condition)

    def dead_terms(self) -> tuple[str, ...]:
        """Terms of the outermost union that add nothing: all can go at once. Raises as `equals` does."""
        return tuple(map(str, proofs.dead_terms(self.syntax)))

    def empty_row(self) -> EmptyRow | None:
        """A row 0 <= q < kv_len = q_len without keys; None if for no length there is one. Raises as `equals` does."""
        return emptiness.empty_rows(self.condition)

    def _check_call(self, q_len: int, kv_len: int, num_heads: int, batch_size: int, tensors: Mapping[str, Any]) -> None:
        _check_lengths(q_len, kv_len, num_heads, batch_size)
        Tensors(tensors, kv_len, batch_size, num_heads, q_len).require(self.free_names)


def parse(text: str, /, layer: int | None = None, **bindings: int) -> Pattern:
    """The pattern that `text` writes.

    Args:
        text: A pattern.
        layer: The number of the layer, from 0; `layers(..)` becomes `full` or `none` by it.
        bindings: Integers for names; other names stay free and are given as tensors at each call.

    Raises:
        PatternError: The text is no pattern; further errors of the same text are in `.others`.
        BindError: A binding is no integer, or the text has no such name.

    >>> parse("local(256) | global([0, cls])", cls=7)
    Pattern('local(256) | global([0, 7])')
    """
    return Pattern(parse_text(text, bindings, layer))


def _joined(node: type[Union] | type[Intersection], *patterns: str | Pattern) -> Pattern:
    """Patterns under one `|` or `&`, flat."""
    nodes = [Pattern.of(pattern).syntax for pattern in patterns]
    return _checked(node(tuple(x for one in nodes for x in (one.operands if isinstance(one, node) else (one,)))))


def _checked(node: Node) -> Pattern:
    """A pattern whose free names each stand for one kind of tensor."""
    frontend.free_names(node)
    return Pattern(node)


def _lengths(name: str, given: Any, most: int, batch_size: int) -> list[int]:
    """One a batch entry, from 0 to `most`."""
    if given is None:
        return [most] * batch_size
    found = np.asarray(given.tolist() if hasattr(given, "tolist") else given)
    if found.shape != (batch_size,) or found.dtype.kind not in "iu" or not ((found >= 0) & (found <= most)).all():
        raise ArgumentError("E060", f"{name} are lengths from 0 to {most}, one a batch entry, not {given!r}")
    return [int(one) for one in found]


def _placed(rows: list[int], keys: list[int], q_offset: int | None, k_offset: int) -> list[dict[str, int | None]]:
    """Lengths and offsets of batch entries, as the oracle takes them."""
    return [
        {"q_len": q, "kv_len": k_offset + k, "num_keys": k, "q_offset": q_offset, "k_offset": k_offset}
        for q, k in zip(rows, keys, strict=True)
    ]


def _given(kv_len: int, k_offset: int, num_keys: int | None) -> tuple[int, int]:
    """Positions of the keys that are given, half-open."""
    return k_offset, k_offset + max(kv_len - k_offset if num_keys is None else num_keys, 0)


def _check_lengths(q_len: int, kv_len: int, num_heads: int, batch_size: int) -> None:
    values = {"q_len": q_len, "kv_len": kv_len, "num_heads": num_heads, "batch_size": batch_size}
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or value < 0:
            raise ArgumentError("E060", f"{name} is a number from 0, not {value!r}")


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        message = "a mask is a torch tensor, and torch is not installed"
        raise MissingDependencyError("E050", message, hint="pip install 'spattn[torch]'") from error
