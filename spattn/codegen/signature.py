"""The arguments of a kernel, declared once: text, launches and types ahead of time derive from this list."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Literal

from spattn.codegen.environment import code
from spattn.codegen.kinds import CONSTANTS, HEADS, ROW_LETTERS, Kind, Part
from spattn.codegen.parameters import DocumentIds, Membership, Role, Values, dimensions, has_first_row
from spattn.codegen.wrapping import WIDTH
from spattn.expressions.frozen import frozen

What = Literal["tensor", "stride", "size", "scalar", "constexpr"]
Element = Literal["", "input", "fp32", "part", "given", "int32", "int8"]
UNALIGNED = ("dlse",)  # the tensor that a user gives with any strides
NO_BREAK = "\0"
PLANNED = ("splits", "batch_size")  # numbers that all calls of a launch plan share


@frozen
class Argument:
    """One argument.

    Attributes:
        name: In the kernel's text.
        what: A tensor's address, one of its strides or sizes, another number, or a constant that is compiled in.
        element: What a tensor holds: "input" the dtype of q, "part" what passes leave to each other, "given" a user's
            integers, int32 as a rule.
        per_call: Do calls of one launch plan give it different values?
        specialised: May the compiler ask whether it is 1 or divisible by 16?
        aligned: Is a tensor's address, or a stride, divisible by 16 in a well-laid-out call?
    """

    name: str
    what: What
    element: Element = ""
    per_call: bool = False
    specialised: bool = False
    aligned: bool = False


@frozen
class Signature:
    """Arguments in order: what differs between launches, then what is compiled in.

    Attributes:
        groups: Those of one tensor, or of one kind, together.
    """

    groups: tuple[tuple[Argument, ...], ...]

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """In order."""
        every = [argument for group in self.groups for argument in group]
        return (*(x for x in every if x.what != "constexpr"), *(x for x in every if x.what == "constexpr"))

    @property
    def names(self) -> tuple[str, ...]:
        """In order."""
        return tuple(argument.name for argument in self.arguments)

    @property
    def inputs(self) -> tuple[tuple[Argument, ...], ...]:
        """Those of each run-time tensor: its address, then its numbers."""
        return tuple(group for group in self.groups if group[1:] and group[1].what == "size")

    @property
    def values(self) -> tuple[str, ...]:
        """Lines of text that name what differs between launches."""
        return _lines(one.name for one in self.arguments if one.what != "constexpr")

    @property
    def constants(self) -> tuple[str, ...]:
        """Lines of text that name what is compiled in."""
        return _lines(one.name for one in self.arguments if one.what == "constexpr")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Lines of text of a function that takes all."""
        return (*self.values, *_lines(f"{one.name}: tl.constexpr" for one in self.arguments if one.what == "constexpr"))

    @property
    def unspecialised(self) -> str:
        """Numbers for whose values nothing is compiled, quoted; floats never are looked at."""
        numbers = [one for one in self.arguments if one.what in ("size", "scalar") and not one.specialised]
        numbers.sort(key=lambda one: one.what)  # what is told of a launch first
        return code(", ".join(f'"{one.name}"' for one in numbers))


def _lines(names: Iterable[str]) -> tuple[str, ...]:
    """Names with commas, as many a line as fit; one and its annotation stay together."""
    together = " ".join(f"{name.replace(' ', NO_BREAK)}," for name in names)
    filled = textwrap.wrap(together, WIDTH - 8, break_on_hyphens=False, break_long_words=False)
    return tuple(code(line.replace(NO_BREAK, " ")) for line in filled)


def signature_of(
    kind: Kind, tensors: Sequence[Role], numbers: Iterable[str], boxes: Iterable[Sequence[str]]
) -> Signature:
    """The arguments of a pass's kernel.

    Args:
        kind: What it computes.
        tensors: Its run-time tensors.
        numbers: What it is told of a launch.
        boxes: Names of the sides of each box that it walks over.
    """
    operands = (_operand(name, ROW_LETTERS.get(name, "m")) for name in kind.operands)
    inputs = (_input(f"t{i}", role) for i, role in enumerate(tensors))
    constants = (CONSTANTS[:4], CONSTANTS[4:], *boxes)
    return Signature(
        (
            *operands,
            _pointers(kind),
            *inputs,
            tuple(Argument(name, "constexpr") for name in HEADS),
            tuple(_number(name) for name in numbers),
            *(tuple(Argument(str(name), "constexpr") for name in group) for group in constants),
        )
    )


def combining(kind: Kind, signature: Signature) -> Signature:
    """The arguments of the kernel that combines the splits of a pass: first what they left."""
    return Signature((tuple(_part(f"split{part.tag}_ptr", part) for part in kind.parts), *signature.groups))


def _operand(name: str, row: str) -> tuple[Argument, ...]:
    letter, aligned = "o" if name == "out" else name, name not in UNALIGNED
    element: Element = "input" if aligned else "fp32"
    return (
        Argument(f"{name}_ptr", "tensor", element, aligned=True),
        Argument(f"stride_{letter}b", "stride", per_call=True, specialised=True, aligned=aligned),
        Argument(f"stride_{letter}h", "stride", per_call=True, specialised=True, aligned=aligned),
        # a constant, so that the addresses of a thread differ by constants
        Argument(f"stride_{letter}{row}", "constexpr"),
    )


def _pointers(kind: Kind) -> tuple[Argument, ...]:
    vectors = (Argument(f"{name}_ptr", "tensor", "fp32", aligned=True) for name in kind.vectors)
    parts = (_part(f"part_{way}{part.tag}_ptr", part) for way in ("in", "out") for part in kind.parts)
    heads, requests, marks = (
        Argument("pairs_ptr", "tensor", "int32", aligned=True),
        Argument("requests_ptr", "tensor", "int32", aligned=True),
        Argument("marks_ptr", "tensor", "fp32", aligned=True),
    )
    return (*vectors, *parts, heads, requests, marks)


def _part(name: str, part: Part) -> Argument:
    return Argument(name, "tensor", "part" if part.scaled else "fp32", aligned=True)


def _input(name: str, role: Role) -> tuple[Argument, ...]:
    """A run-time tensor, its strides of batch and head, then size and stride of each dimension."""
    given: Element = "given" if isinstance(role, Values | DocumentIds) else "int32"
    element: Element = "int8" if isinstance(role, Membership) else given
    found = [Argument(f"{name}_ptr", "tensor", element, aligned=True)]
    found += [Argument(f"{name}_stride_{axis}", "size", per_call=True) for axis in "bh"]
    for i in range(dimensions(role)):
        found.append(Argument(f"{name}_size_{i}", "size", per_call=True))
        found.append(Argument(f"{name}_stride_{i}", "size", per_call=True, specialised=True))
    if has_first_row(role):
        found.append(Argument(f"{name}_first_row", "size", per_call=True))
    return tuple(found)


def _number(name: str) -> Argument:
    """What a launch is told; the scale is a float."""
    return Argument(str(name), "scalar", "fp32" if name == "qk_scale" else "", name not in PLANNED, name == "qk_scale")
