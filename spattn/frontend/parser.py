"""From text to a pattern.

>>> str(parse("local(w) | global([0, cls])", {"w": 128, "cls": 7}))
'local(128) | global([0, 7])'
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral

from spattn.errors import BindError, PatternError, SpattnError
from spattn.frontend.context import Context, suggestion
from spattn.frontend.grammar import tree_of
from spattn.frontend.limits import MAX_INTEGER
from spattn.frontend.meaning import free_names, meaning
from spattn.frontend.prelude import lookup, names
from spattn.frontend.reading import read_pattern
from spattn.frontend.syntax import Node


def parse(text: str, bindings: Mapping[str, int] | None = None, layer: int | None = None) -> Node:
    """The pattern that `text` writes.

    Args:
        text: A pattern.
        bindings: Integers for names; each must occur in the text.
        layer: The number of the layer, from 0; `layers(..)` becomes `full` or `none` by it.

    Raises:
        PatternError: The text is no pattern; further errors of the same text are in `.others`.
        BindError: A binding is no integer, or the text has no such name.
    """
    source = _text(text)
    bound = _integers(bindings or {})
    if layer is not None and (not _is_integer(layer) or layer < 0):
        raise BindError("E031", f"layer is an integer from 0, not {layer!r}")
    context = Context(source, lookup, names(), meaning, bound, layer)
    tree = tree_of(source)
    node = read_pattern(context, tree.children[0])
    _check_bindings(context)
    _check_names(context, node)
    if context.errors:
        first, *others = context.errors
        first.others = tuple(others)
        raise first
    return node


def _text(text: object) -> str:
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    shown = repr(text) if isinstance(text, bool | int | float | None) else f"a {type(text).__name__}"
    hint = 'quote the pattern: in YAML pattern: "local(128) | global([0])"'
    raise PatternError("E034", f"a pattern is a string, not {shown}", hint=hint)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _integers(bindings: Mapping[str, int]) -> dict[str, int]:
    """`bindings` as plain integers."""
    result: dict[str, int] = {}
    for name, value in bindings.items():
        if not _is_integer(value):
            kind = type(value).__name__
            raise BindError("E031", f"{name} is bound to a {kind}, an integer is needed", hint=f"write {name}=128")
        if abs(int(value)) > MAX_INTEGER:
            raise BindError("E090", f"the integer bound to {name} is too large", hint=f"the limit is {MAX_INTEGER}")
        result[str(name)] = int(value)
    return result


def _check_bindings(context: Context) -> None:
    unused = [name for name in context.bindings if name not in context.used]
    if not unused or context.errors:
        # what was refused may have held the name
        return
    from spattn.frontend.tokens import scan

    written = {piece.text for piece in scan(context.source) if piece.kind == "name"} - set(names())
    for name in unused:
        hint = suggestion(name, tuple(sorted(written - {name}))) or "delete the binding"
        context.errors.append(BindError("E038", f"the pattern has no name {name!r} to bind", hint=hint))


def _check_names(context: Context, node: Node) -> None:
    try:
        free_names(node)
    except SpattnError as error:
        error.source = context.source
        context.errors.append(error)
