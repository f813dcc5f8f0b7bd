"""The arguments of a kernel, declared once: text, launches and types ahead of time derive from this list."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Literal

from spattn.codegen.environment import code
from spattn.codegen.kernel_specs import CONSTANTS, DECODE_CONSTANTS, HEADS, ROW_LETTERS, KernelSpec, Part
from spattn.codegen.parameters import DocumentIds, Floats, Membership, Role, Values, dimensions, numbers
from spattn.codegen.wrapping import WIDTH
from spattn.expressions.frozen import frozen

What = Literal["tensor", "stride", "size", "scalar", "constexpr"]
Element = Literal["", "input", "cache", "fp32", "part", "given", "int64", "int32", "int8"]
UNALIGNED = ("dlse",)  # the tensor that a user gives with any strides
NO_BREAK = "\0"
PLANNED = ("splits", "batch_size", "heads", "chunks", "program")  # numbers that all calls of a launch plan share
REPAIR_INDENT = 20  # of that call


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


REPAIR = Argument("program", "scalar", specialised=True), Argument("REPAIR", "constexpr")
"""Of a pass's own kernel, besides: which tile to repair, where it is called for that."""


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
    def repaired(self) -> tuple[str, ...]:
        """Lines of text that call with all, for a tile to repair."""
        return _lines(("True" if name == "REPAIR" else name for name in self.names), REPAIR_INDENT)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Lines of text of a function that takes all."""
        values = (one.name for one in self.arguments if one.what != "constexpr")
        constants = (f"{one.name}: tl.constexpr" for one in self.arguments if one.what == "constexpr")
        return (*_lines(values), *_lines(constants))

    @property
    def unspecialised(self) -> str:
        """Numbers for whose values nothing is compiled, quoted; floats never are looked at."""
        numbers = [one for one in self.arguments if one.what in ("size", "scalar") and not one.specialised]
        numbers.sort(key=lambda one: one.what)  # what is told of a launch first
        return code(", ".join(f'"{one.name}"' for one in numbers))


def _lines(names: Iterable[str], indent: int = 4) -> tuple[str, ...]:
    """Names with commas, as many a line as fit; one and its annotation stay together."""
    together = " ".join(f"{name.replace(' ', NO_BREAK)}," for name in names)
    filled = textwrap.wrap(together, WIDTH - indent, break_on_hyphens=False, break_long_words=False)
    return tuple(code(line.replace(NO_BREAK, " ")) for line in filled)


def signature_of(
    kind: KernelSpec,
    tensors: Sequence[Role],
    numbers: Iterable[str],
    boxes: Iterable[Sequence[str]],
    *,
    resume: bool,
    final: bool,
) -> Signature:
    """The arguments of the kernel that repairs a pass's tiles; the pass's own kernel has two more.

    Args:
        kind: What it computes.
        tensors: Its run-time tensors.
        numbers: What it is told of a launch.
        boxes: Names of the sides of each box that it walks over.
        resume: Does it go on from an earlier pass's results?
        final: Does it store the call's results?
    """
    operands = (_operand(name, ROW_LETTERS.get(name, "m")) for name in kind.operands)
    ways = ("part_in",) * resume + ("part_out",) * (not final)
    inputs = (_input(f"t{i}", role) for i, role in enumerate(tensors))
    constants = (CONSTANTS[:4], CONSTANTS[4:], *boxes)
    return Signature(
        (
            *operands,
            tuple(_pointer(f"{name}_ptr") for name in kind.vectors),
            tuple(_part(f"{way}{part.tag}_ptr", part) for way in ways for part in kind.parts),
            _splits(kind),
            (_pointer("bh_ptr", "int32"), _pointer("requests_ptr", "int32"), _pointer("flags_ptr")),
            *inputs,
            tuple(Argument(name, "constexpr") for name in HEADS),
            tuple(_number(name) for name in numbers),
            *(tuple(Argument(str(name), "constexpr") for name in group) for group in constants),
        )
    )


def repairable(signature: Signature) -> Signature:
    """The arguments of a pass's own kernel: besides, a tile to repair."""
    return Signature((*signature.groups, REPAIR))


def combining(kind: KernelSpec) -> Signature:
    """The arguments of the kernel that combines the splits of a pass, one for all patterns."""
    ways = (_part(f"{way}{part.tag}_ptr", part) for way in ("part_in", "part_out") for part in kind.parts)
    vectors = tuple(_pointer(f"{name}_ptr") for name in kind.vectors if name in kind.results)
    outputs = [_operand(name, ROW_LETTERS.get(name, "m")) for name in kind.results if name in kind.operands]
    numbers = ["splits", "rows", "heads", "chunks", *(["qk_scale"] if kind.scaled else [])]
    widths = dict.fromkeys(part.width for part in kind.parts if part.width)
    constants = (*widths, "BLOCK_M", "BLOCK_D", "RESUME", "FINAL")
    return Signature(
        (
            _splits(kind),
            tuple(ways),
            *outputs,
            vectors,
            tuple(_number(name) for name in numbers),
            tuple(Argument(str(name), "constexpr") for name in constants),
        )
    )


def decoding(
    kind: KernelSpec, tensors: Sequence[Role], numbers: Iterable[str], boxes: Iterable[Sequence[str]]
) -> Signature:
    """The arguments of the kernel of a decoder's step; other arguments as of `signature_of`."""
    q, k, v, out = (
        (
            Argument(f"{name}_ptr", "tensor", "cache" if name in "kv" else "input", aligned=True),
            *(
                Argument(f"stride_{name[0]}{axis}", "stride", per_call=True, specialised=True, aligned=True)
                for axis in ("bhn" if name in "kv" else "bhm")
            ),
        )
        for name in kind.operands
    )
    strides_of_lse = tuple(Argument(f"stride_l{axis}", "scalar", per_call=True) for axis in "bhm")
    return Signature(
        (
            q,
            k,
            v,
            out,
            (_pointer("lse_ptr"), *strides_of_lse),
            tuple(_pointer(f"{name}_ptr") for name in ("part", "part_lse")),
            (_pointer("arrived_ptr", "int32"), _pointer("kv_lens_ptr", "int32"), _pointer("cu_seqlens_ptr", "int32")),
            (_pointer("table_ptr", "int32"), Argument("stride_table", "scalar", per_call=True)),
            (_pointer("table_starts_ptr", "int32"), _pointer("kept_ptr", "int32")),
            tuple(
                Argument(name, "scalar", per_call=True)
                for name in ("ring_slots", "ring_base", "blocks", "capacity", "max_new", "shared_keys")
            ),
            *(
                (_pointer(f"{name}_ptr"), Argument(f"stride_{name}", "scalar", per_call=True))
                for name in ("k_scale", "v_scale")
            ),
            (_pointer("sinks_ptr"), _pointer("heads_ptr", "int32")),
            (_pointer("shared_ptr"), _pointer("shared_lse_ptr")),
            *(_input(f"t{i}", role) for i, role in enumerate(tensors)),
            tuple(_number(name) for name in numbers),
            (Argument("heads", "scalar"), Argument("splits", "scalar")),
            *(tuple(Argument(str(name), "constexpr") for name in group) for group in (HEADS, DECODE_CONSTANTS, *boxes)),
        )
    )


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


def _pointer(name: str, element: Element = "fp32") -> Argument:
    return Argument(name, "tensor", element, aligned=True)


def _splits(kind: KernelSpec) -> tuple[Argument, ...]:
    """What the splits of a tile leave: their results, and which rows these are of."""
    return (*(_part(f"split{part.tag}_ptr", part) for part in kind.parts), _pointer("split_row_ptr", "int64"))


def _part(name: str, part: Part) -> Argument:
    return Argument(name, "tensor", "part" if part.scaled else "fp32", aligned=True)


def _input(name: str, role: Role) -> tuple[Argument, ...]:
    """A run-time tensor, its strides of batch and head, then size and stride of each dimension."""
    given: Element = "given" if isinstance(role, Values | DocumentIds) else "int32"
    element: Element = "int8" if isinstance(role, Membership) else "fp32" if isinstance(role, Floats) else given
    found = [Argument(f"{name}_ptr", "tensor", element, aligned=True)]
    found += [Argument(f"{name}_stride_{axis}", "size", per_call=True) for axis in "bh"]
    for i in range(dimensions(role)):
        found.append(Argument(f"{name}_size_{i}", "size", per_call=True))
        found.append(Argument(f"{name}_stride_{i}", "size", per_call=True, specialised=True))
    found += [Argument(f"{name}_{number}", "size", per_call=True) for number in numbers(role)]
    return tuple(found)


def _number(name: str) -> Argument:
    """What a launch is told; the scale is a float."""
    return Argument(str(name), "scalar", "fp32" if name == "qk_scale" else "", name not in PLANNED, name == "qk_scale")
