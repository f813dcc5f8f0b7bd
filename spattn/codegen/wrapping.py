"""Lines of generated Python that are too long, broken as a formatter would: what is in brackets moves a level in.

White space, parentheses around a whole right-hand side and trailing commas are added: the parsed module is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

WIDTH = 120
OPERATORS = (" <= ", " < ", " == ", " != ", " >= ", " > ", " | ", " & ", " + ", " - ", " * ")
ASSIGNMENT = re.compile(r"( *[\w, ]+? [-&|+*]?= )(.*)")
LEADING = re.compile(r"( *)((?:<=|<|==|!=|>=|>|\||&|\+|-|\*) )?(.*)")


def wrapped(line: str, width: int = WIDTH) -> list[str]:
    """The line as lines that fit, as far as they can be made to."""
    if len(line) <= width or line.lstrip().startswith(("#", '"""')):
        return [line]
    margin = line[: len(line) - len(line.lstrip())]
    assigned = ASSIGNMENT.fullmatch(line)
    if assigned and not _is_call(assigned[2]):
        return [f"{assigned[1]}(", *_body(assigned[2], f"{margin}    ", width), f"{margin})"]
    opening = _opening(line)
    if opening is not None:
        start, stop = opening
        return [line[: start + 1], *_body(line[start + 1 : stop], f"{margin}    ", width), f"{margin}{line[stop:]}"]
    return _names(line, margin, width)


def _body(text: str, margin: str, width: int) -> list[str]:
    """What stands between brackets: on one line, or an argument a line, or an operand a line."""
    if len(margin) + len(text) <= width:
        return [f"{margin}{text}"]
    arguments = list(_split(text, ", "))
    if len(arguments) > 1:
        return [part for argument in arguments for part in _operand(f"{margin}{argument.rstrip(',')},", width)]
    return _operand(f"{margin}{text}", width)


def _operand(line: str, width: int) -> list[str]:
    """A line inside of brackets, broken before an operator or in a bracket of its own."""
    if len(line) <= width:
        return [line]
    found = LEADING.fullmatch(line)
    assert found is not None
    margin, operator, text = found[1], found[2] or "", found[3]
    for between in OPERATORS:
        operands = list(_split(text, between))
        if len(operands) > 1:
            later = (f"{margin}{between.lstrip()}{operand}" for operand in operands[1:])
            return [part for one in (f"{margin}{operator}{operands[0]}", *later) for part in _operand(one, width)]
    return wrapped(line, width)


def _names(line: str, margin: str, width: int) -> list[str]:
    """Arguments without brackets, as many a line as fit."""
    lines = [margin]
    for name in line.split():
        if len(lines[-1]) + len(name) + 1 > width:
            lines.append(margin)
        lines[-1] += name if lines[-1] == margin else f" {name}"
    return lines


def _is_call(text: str) -> bool:
    """Does the bracket that opens first, after a name at most, close at the end?"""
    opening = _opening(text)
    return opening is not None and re.fullmatch(r"[\w.]*", text[: opening[0]]) is not None


def _opening(line: str) -> tuple[int, int] | None:
    """The parentheses that close at the end of the line, but for a colon or comma."""
    stop = len(line.rstrip(":,")) - 1
    if line[stop] != ")":
        return None
    starts = [place for place, depth in _depths(line[:stop]) if depth == 0 and line[place] == "("]
    return (starts[-1], stop) if starts else None


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """(place, brackets open before it) of each character."""
    depth = 0
    for place, character in enumerate(text):
        depth -= character in ")]"
        yield place, depth
        depth += character in "(["


def _split(text: str, separator: str) -> Iterator[str]:
    """Parts of `text` between separators outside of brackets."""
    begin = 0
    for place, depth in _depths(text):
        if depth == 0 and text.startswith(separator, place):
            yield text[begin:place]
            begin = place + len(separator)
    yield text[begin:]
