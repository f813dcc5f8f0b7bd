"""What caches of a pattern have to hold, as data and in words: key heads that need the same are one part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from spattn.errors import ArgumentError, NotDecodableError, UnsupportedError
from spattn.pattern import Pattern
from spattn.relation.liveness import Liveness


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        num_heads: Query heads; None for any number, all in one part.
        num_kv_heads: Key heads, as many as query heads if None.
        length: No query stands there or later.
        new: Tokens that a call adds, at most.
        rollback: Tokens that are taken back after a call beyond its own, at most.
        page_size: Keys of a page; None if there are no pages.
        at: A number of tokens held.
        key: One of these.
    """

    num_heads: int | None = None
    num_kv_heads: int | None = None
    length: int | None = None
    new: int = 1
    rollback: int = 0
    page_size: int | None = None
    at: int | None = None
    key: int | None = None


@dataclass(frozen=True)
class Moment:
    """What a cache of `tokens` tokens has to hold.

    Attributes:
        keys: Live keys.
        kept: Those of them that are kept for ever.
        pages: Pages with a live key, None without pages.
        of_pages: Pages of all tokens.
    """

    tokens: int
    keys: int
    kept: int
    pages: int | None
    of_pages: int | None


@dataclass(frozen=True)
class Why:
    """Why a key has to stay.

    Attributes:
        later: The first later query that attends it, in words; None if the key may be dropped.
        witness: The same as data.
    """

    key: int
    tokens: int
    later: str | None
    witness: dict[str, Any] | None


@dataclass(frozen=True)
class Part:
    """Key heads whose caches hold the same.

    Attributes:
        kv_heads: These; None for all, however many there are.
        live: Which keys are live, a formula over k and t.
        forever: Which are kept for ever, a formula over k.
        reach: The age of the oldest of the others; None where they have any age.
        slots: Of a ring for the others; None where no ring is long enough.
        pages: Which pages are needed, a formula over j and t; None without pages, or where it was not found.
        assumed: What was taken as true.
        note: Why every key counts as live, if isl did not answer.
    """

    kv_heads: tuple[int, ...] | None
    live: str
    forever: str
    reach: int | None
    slots: int | None
    pages: str | None
    assumed: tuple[str, ...]
    note: str
    moment: Moment | None
    why: Why | None


@dataclass(frozen=True)
class Report:
    """What caches of a pattern have to hold; `str()` says it in words."""

    pattern: str
    question: Question
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON data."""
        return {"decodable": True, **asdict(self)}


def report(pattern: Pattern, question: Question) -> Report:
    """What caches of a pattern have to hold.

    Raises:
        NotDecodableError: E062, a row attends a key after it, or changes as the call grows.
        ArgumentError: E060, numbers do not fit each other.
        UnsupportedError: E096, why a key has to stay takes too long to find.
        MissingDependencyError: islpy is not installed.
    """
    if question.key is not None and question.at is None:
        raise ArgumentError("E060", "why a key has to stay depends on how many tokens are held", hint="give that too")
    found = _by_kv_head(pattern, question)
    return Report(str(pattern), question, tuple(_part(heads, live, question) for heads, live in found))


def refusal(pattern: Pattern, error: NotDecodableError) -> dict[str, Any]:
    """Why decode steps cannot compute a pattern, as JSON data."""
    witness: Any = error.witness
    return {
        "decodable": False,
        "pattern": str(pattern),
        "message": error.message,
        "hint": error.hint,
        "witness": None if witness is None else asdict(witness),
        "lengths": error.lengths,
    }


def _by_kv_head(pattern: Pattern, question: Question) -> list[tuple[tuple[int, ...] | None, Liveness]]:
    heads, groups = question.num_heads, question.num_kv_heads
    whole = pattern.live(num_heads=heads, num_kv_heads=groups, length=question.length)
    if heads is None:
        return [(None, whole)]
    same: dict[object, list[int]] = {}
    first: dict[object, Liveness] = {}
    for kv_head in range(heads if groups is None else groups):
        live = pattern.live(num_heads=heads, num_kv_heads=groups, kv_head=kv_head, length=question.length)
        alike = (live.needed, live.assumed, live.note)
        same.setdefault(alike, []).append(kv_head)
        first.setdefault(alike, live)
    return [(tuple(kv_heads), first[alike]) for alike, kv_heads in same.items()]


def _part(kv_heads: tuple[int, ...] | None, live: Liveness, question: Question) -> Part:
    return Part(
        kv_heads=kv_heads,
        live=live.formula(),
        forever=live.forever,
        reach=live.reach,
        slots=_slots(live, question),
        pages=None if question.page_size is None else live.page_formula(question.page_size),
        assumed=live.assumed,
        note=live.note,
        moment=None if question.at is None else _moment(live, question.at, question.page_size),
        why=None if question.key is None or question.at is None else _why(live, question.key, question.at),
    )


def _slots(live: Liveness, question: Question) -> int | None:
    try:
        return live.slots(question.new, question.rollback)
    except UnsupportedError:
        return None


def _moment(live: Liveness, tokens: int, size: int | None) -> Moment:
    held = live.mask(tokens)
    return Moment(
        tokens=tokens,
        keys=int(held.sum()),
        kept=int((held & live.kept_mask(tokens)).sum()),
        pages=None if size is None else len(live.pages(tokens, size)),
        of_pages=None if size is None else -(-tokens // size),
    )


def _why(live: Liveness, key: int, tokens: int) -> Why:
    found = live.why(key, tokens)
    if found is None:
        return Why(key, tokens, None, None)
    head = f" of head {found.head} of {found.num_heads}" if found.num_heads > 1 else ""
    batch = f" of batch entry {found.batch} of {found.batch_size}" if found.batch_size > 1 else ""
    return Why(key, tokens, f"query {found.q}{head}{batch}", asdict(found))


def _lines(found: Report) -> Iterator[str]:
    yield f"pattern     {found.pattern}"
    for part in found.parts:
        if part.kv_heads is not None and len(found.parts) > 1:
            yield ""
            yield f"kv heads    {_runs(part.kv_heads)}"
        yield from _part_lines(part, found.question)


def _part_lines(part: Part, question: Question) -> Iterator[str]:
    yield f"live        {_keys(part.live)}, with t tokens held and the next query at t{_until(question)}"
    yield f"for ever    {_keys(part.forever)}"
    if part.forever != "true":
        yield from _window_lines(part, question)
    if question.page_size is not None and part.pages is not None:
        yield f"pages       of {question.page_size} keys: {_keys(part.pages, 'page j')}"
    if part.moment is not None:
        yield f"at          {_moment_text(part.moment)}"
    if part.why is not None:
        attends = "may attend" if part.assumed else "attends"
        later = "may go: no later query" if part.why.later is None else f"stays: {part.why.later}"
        yield f"why         key {part.why.key} of {part.why.tokens} {later} {attends} it"
    if part.assumed:
        yield f"assumed     {'; '.join(part.assumed)}: taken as true, so that fewer keys may be needed"
    if part.note:
        yield f"note        {part.note}"


def _window_lines(part: Part, question: Question) -> Iterator[str]:
    others = "live keys" if part.forever == "false" else "other live keys"
    if part.reach is None or part.slots is None:
        yield f"reach       none: {others} may be of any age, and no ring holds them"
        return
    youngest = f"{others} are at least t - {part.reach}" if part.reach else f"there are no {others}"
    yield f"reach       {part.reach}: {youngest}"
    back = f" and {question.rollback} back" if question.rollback else ""
    yield f"ring        {part.slots} slots, for calls of {question.new} new{back} at most"


def _until(question: Question) -> str:
    return "" if question.length is None else f", t < {question.length}"


def _keys(formula: str, what: str = "key k") -> str:
    """A formula, or in words that all or none are meant."""
    return {"true": f"every {what}", "false": f"no {what}"}.get(formula, formula)


def _moment_text(moment: Moment) -> str:
    pages = "" if moment.pages is None else f"; {moment.pages} of {moment.of_pages} pages"
    return f"{moment.tokens} tokens: {moment.keys} live, {moment.kept} of them for ever{pages}"


def _runs(numbers: tuple[int, ...]) -> str:
    """`0-3, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
