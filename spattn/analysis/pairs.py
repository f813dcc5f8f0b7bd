"""How many pairs a call allows, as far as that can be said at once."""

from __future__ import annotations

from spattn.analysis.calls import MAX_ROWS, Call
from spattn.errors import UnsupportedError
from spattn.expressions.algebra import subexpressions
from spattn.expressions.nodes import Bool, Int, Sum
from spattn.layout import counting
from spattn.relation import counting as row_counting
from spattn.relation.formula import Formula, formula

MAX_REACH = 1 << 18  # sum of a pattern's constants up to which a formula is looked for: it is checked up to there
MAX_UNCUT = 1 << 12  # queries of a pattern that has no cuts, whose partial tiles are looked at


def allowed_pairs(condition: Bool, call: Call) -> int | None:
    """Allowed pairs of all heads and batch entries; None where counting would take too long."""
    if call.q_len > MAX_ROWS or (call.is_spread(condition) and call.q_len * call.entries > MAX_ROWS):
        return _by_formula(condition, call)
    try:
        return _counted(condition, call)
    except UnsupportedError:  # E097
        return None


def _counted(condition: Bool, call: Call) -> int | None:
    sizes = call.num_heads, call.batch_size, call.given
    arguments = (condition, call.q_len, call.kv_len, call.tensors, call.q_offset, *sizes)
    found = row_counting.count(*arguments)
    if found is None:
        if max(call.q_len, call.num_keys) > MAX_UNCUT:
            return None
        found = counting.count_by_layout(*arguments)
    return found if call.is_spread(condition) else found * call.entries


def _by_formula(condition: Bool, call: Call) -> int | None:
    found = known_formula(condition)
    if found is None or call.given != (0, call.q_len) or call.q_len != call.kv_len or call.q_offset:
        return None
    try:
        return found.at(call.q_len) * call.entries
    except ValueError:
        return None


def known_formula(condition: Bool) -> Formula | None:
    """The number of pairs of a head as a formula, where that is soon found."""
    reach = sum(abs(_constant(part)) for part in subexpressions(condition))
    return formula(condition) if reach <= MAX_REACH else None


def _constant(part: object) -> int:
    match part:
        case Int(value) | Sum(_, value):
            return value
    return 0
