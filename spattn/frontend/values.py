"""Arguments as the parameter wants them: a tree of shapes in, an integer, a set, a flag, a name out."""

from __future__ import annotations

from lark import Token, Tree

from spattn.frontend.context import Context
from spattn.frontend.grammar import Item, parts
from spattn.frontend.limits import MAX_DIGITS, MAX_INTEGER, MAX_ITEMS, span_of
from spattn.frontend.reserved import KEYWORDS, is_reserved
from spattn.frontend.spec import CHOICES, ROLES, Kind, Parameter
from spattn.frontend.syntax import Flag, IndexSet, Infinity, Integer, Name, Segments, Slice, Value

_SETS = (Kind.INDICES, Kind.OFFSETS, Kind.NUMBERS)
_LISTS = (*_SETS, Kind.AXES, Kind.FLAGS)
_DOCUMENTS = (Kind.DOCUMENTS, Kind.QUERY_DOCUMENTS)
_ENTRY = {Kind.FLAGS: Kind.FLAG, Kind.AXES: Kind.INTEGER}


def read_value(context: Context, item: Item, parameter: Parameter) -> Value | None:
    """The argument `item` for `parameter`, patterns and conditions excepted; None: an error was noted."""
    match item:
        case Token(type="NAME"):
            return _read_name(context, item, parameter)
        case Tree(data="number"):
            return _read_number(context, item, parameter)
        case Tree(data="list"):
            return _read_list(context, item, parameter)
        case Tree(data="call", children=[Token() as name, *given]) if (
            name == "segments" and parameter.kind in _DOCUMENTS
        ):
            return _read_segments(context, item, given)
    _wrong(context, item, parameter)
    return None


def read_integer(context: Context, sign: Token | None, digits: Token) -> Integer | None:
    """The integer written as `digits`, checked before Python may spend time on it."""
    span = span_of(digits)
    if not digits.isdigit():
        plain = _plain(digits)
        hint = f"write {plain}" if plain else "integers are written in decimal digits"
        context.fail("E020", f"{_short(digits)} is no integer", span, "digits only", hint)
        return None
    stripped = digits.lstrip("0") or "0"
    if len(stripped) > MAX_DIGITS or int(stripped) > MAX_INTEGER:
        context.fail("E090", f"the integer {_short(digits)} is too large", span, f"the limit is {MAX_INTEGER}")
        return None
    value = int(stripped)
    return Integer(-value if sign else value, span=span_of(sign) if sign else span)


def _plain(digits: str) -> str:
    """The decimal digits that `digits` may mean, as in 1_000, 0x10, 1e3, 2.0."""
    if len(digits) > MAX_DIGITS:
        return ""
    try:
        return str(int(digits, 0))
    except ValueError:
        pass
    try:
        value = float(digits)
    except ValueError:
        return ""
    return str(int(value)) if abs(value) <= MAX_INTEGER and value == int(value) else ""


def _short(digits: str) -> str:
    return digits if len(digits) <= 12 else f"{digits[:12]}.. of {len(digits)} characters"


def _read_number(context: Context, item: Tree[Token], parameter: Parameter) -> Value | None:
    value = read_number(context, item)
    if value is None or parameter.kind in _SETS:
        return None if value is None else IndexSet((value,), span=span_of(item))
    if parameter.kind not in (Kind.INTEGER, Kind.EXTENT, Kind.AXES):
        _wrong(context, item, parameter)
        return None
    return value if _is_enough(context, item, value.value, parameter) else None


def read_number(context: Context, item: Tree[Token]) -> Integer | None:
    """A `number` of the grammar."""
    sign, digits = parts(item)
    assert isinstance(digits, Token)
    assert not isinstance(sign, Tree)
    return read_integer(context, sign, digits)


def _is_enough(context: Context, item: Item, value: int, parameter: Parameter) -> bool:
    if parameter.minimum is None or value >= parameter.minimum:
        return True
    message = f"{parameter.name} is at least {parameter.minimum}, not {value}"
    context.fail("E026", message, item, "too small")
    return False


def _read_name(context: Context, name: Token, parameter: Parameter) -> Value | None:
    span = span_of(name)
    if name in context.parameters:
        context.note(str(name), parameter)
        value = Name(str(name), span=span)
        return IndexSet((value,), span=span) if parameter.kind in _SETS else value
    match parameter.kind:
        case Kind.EXTENT if name == "inf":
            return Infinity(span=span)
        case Kind.FLAG | Kind.FLAGS if name in CHOICES[Kind.FLAG]:
            return Flag(name == "true", span=span)
        case Kind.BORDER if name in CHOICES[Kind.BORDER]:
            return Name(str(name), span=span)
        case Kind.INTEGER | Kind.EXTENT | Kind.AXES:
            if name not in context.bindings and context.lookup(str(name)) is not None:
                _wrong(context, name, parameter)
                return None
            bound = bound_integer(context, name)
            return bound if bound and _is_enough(context, name, bound.value, parameter) else None
        case Kind.INDICES | Kind.OFFSETS | Kind.NUMBERS:
            entry = _read_entry(context, name, parameter)
            return IndexSet((entry,), span=span) if entry else None
        case kind if kind in ROLES:
            return _read_tensor(context, name)
    _wrong(context, name, parameter)
    return None


def _read_segments(context: Context, item: Item, given: list[Item]) -> Segments | None:
    match given:
        case [Token() as name]:
            tensor = _read_tensor(context, name)
            return None if tensor is None else Segments(tensor, span=span_of(item))
    message = "segments(..) has one argument, the name of a tensor of cumulative lengths"
    context.fail("E027", message, item, "one name", "write segments(cu)")
    return None


def _read_tensor(context: Context, name: Token) -> Name | None:
    if is_reserved(context, name):
        return None
    if name in context.bindings:
        context.used.add(str(name))
        context.fail("E031", f"{name!s} is a tensor here, but an integer is bound to it", name, "a tensor")
        return None
    return Name(str(name), span=span_of(name))


def bound_integer(context: Context, name: Token) -> Integer | None:
    """The integer bound to `name`; without one, an error is noted."""
    if name in context.bindings and name not in KEYWORDS:
        context.used.add(str(name))
        return Integer(context.bindings[name], span=span_of(name))
    if not is_reserved(context, name):
        known = ", ".join(sorted(context.bindings)) or "none"
        hint = f"give its value when compiling: {name!s}=128 (bound so far: {known})"
        context.fail("E030", f"the name {str(name)!r} has no value", name, "an integer is needed here", hint)
    return None


def _read_list(context: Context, item: Tree[Token], parameter: Parameter) -> Value | None:
    if parameter.kind not in _LISTS:
        _wrong(context, item, parameter)
        return None
    if not item.children:
        context.fail("E021", "the list is empty", item, "nothing in it", "write none for a pattern without pairs")
        return None
    if len(item.children) > MAX_ITEMS:
        message = f"the list has {len(item.children)} items; the limit is {MAX_ITEMS}"
        context.fail("E093", message, item, hint="give it as a tensor")
        return None
    entries = [_read_entry(context, child, parameter) for child in item.children]
    kept = tuple(entry for entry in entries if entry is not None)
    return IndexSet(kept, span=span_of(item)) if len(kept) == len(entries) else None


def _read_entry(context: Context, item: Item, parameter: Parameter) -> Integer | Name | Slice | None:
    """One item of a list."""
    match item:
        case Tree(data="slice") if parameter.kind in _SETS:
            return _read_slice(context, item, parameter)
        case Token() if parameter.kind is Kind.FLAGS and item in CHOICES[Kind.FLAG]:
            return Integer(int(item == "true"), span=span_of(item))
        case Tree(data="number"):
            value = read_number(context, item)
            return value if value and _is_enough(context, item, value.value, parameter) else None
        case Token() if parameter.kind in ROLES and not _is_known(context, item):
            return _read_tensor(context, item)
        case Token():
            return _read_bound(context, item, parameter)
    _wrong(context, item, Parameter(parameter.name, _ENTRY.get(parameter.kind, Kind.INTEGER)))
    return None


def _is_known(context: Context, name: Token) -> bool:
    return name in context.bindings or name in context.parameters


def _read_bound(context: Context, name: Token, parameter: Parameter) -> Integer | Name | None:
    if name in context.parameters:
        context.note(str(name), parameter)
        return Name(str(name), span=span_of(name))
    value = bound_integer(context, name)
    return value if value and _is_enough(context, name, value.value, parameter) else None


def _read_slice(context: Context, item: Tree[Token], parameter: Parameter) -> Slice | None:
    before = len(context.errors)
    wanted = Parameter(parameter.name, Kind.INTEGER)
    bounds: list[Integer | Name | None] = []
    for child in parts(item):
        match child:
            case None:
                bounds.append(None)
            case Tree():
                bounds.append(read_number(context, child))
            case Token():
                bounds.append(_read_bound(context, child, wanted))
    start, stop, step = bounds
    if isinstance(step, Integer) and step.value < 1:
        context.fail("E026", f"the step of a slice is at least 1, not {step.value}", item, "does not step forwards")
    return Slice(start, stop, step, span=span_of(item)) if len(context.errors) == before else None


def _wrong(context: Context, item: Item, parameter: Parameter) -> None:
    written = context.source[span_of(item).start : span_of(item).stop]
    written = written if len(written) <= 40 else written[:37] + ".."
    context.fail("E027", f"{parameter.name} is {parameter.kind.value}, not {written}", item, parameter.kind.value)
