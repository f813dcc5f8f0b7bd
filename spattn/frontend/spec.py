"""What a row of the table of atoms is made of: parameters, the arguments bound to them, a meaning.

`Arguments` hands a meaning plain Python values; a name that nobody bound is refused there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from spattn.errors import BindError, PatternError
from spattn.expressions.nodes import Bool, Documents, Side
from spattn.frontend.syntax import Atom, Flag, IndexSet, Infinity, Integer, Name, Node, Segments, Slice, Value


class Kind(Enum):
    """What may stand for a parameter; the value says it in an error."""

    INTEGER = "an integer"
    EXTENT = "an integer or inf"
    FLAG = "true or false"
    AXES = "an integer or a list with one for each axis"
    FLAGS = "true, false or a list with one for each axis"
    BORDER = "shift or cut"
    INDICES = "a set such as [0, -1, 10:20, ::512]"
    OFFSETS = "a set of distances q - k"
    NUMBERS = "a set of integers"
    DOCUMENTS = "the name of a tensor of document ids, or segments(..) of cumulative lengths"
    QUERY_DOCUMENTS = "the name of a tensor of the queries' document ids, or segments(..) of cumulative lengths"
    LENGTHS = "the name of a tensor of lengths"
    BLOCKS = "the name of a tensor of blocks"
    ANCESTORS = "the name of a tensor of drafted tokens' ancestors"
    DEPTHS = "the name of a tensor of drafted tokens' depths"
    LISTS = "the name of a tensor of lists of blocks"
    PATTERN = "a pattern"
    CONDITION = "a condition on q and k"


ROLES = {
    Kind.INDICES: "tokens",
    Kind.OFFSETS: "tokens",
    Kind.DOCUMENTS: "documents",
    Kind.QUERY_DOCUMENTS: "query documents",
    Kind.LENGTHS: "lengths",
    Kind.BLOCKS: "blocks",
    Kind.LISTS: "block lists",
    Kind.ANCESTORS: "draft ancestors",
    Kind.DEPTHS: "draft depths",
}
CHOICES = {Kind.FLAG: ("true", "false"), Kind.BORDER: ("shift", "cut")}


@dataclass(frozen=True)
class Parameter:
    """One parameter: its kind, its default (None: it must be given), the least integer it takes."""

    name: str
    kind: Kind = Kind.INTEGER
    default: Value | None = None
    minimum: int | None = None
    keyword_only: bool = False

    def __str__(self) -> str:
        return self.name if self.default is None else f"{self.name}={self.default}"


@dataclass(frozen=True)
class AtomSpec:
    """A row of the table: `signatures` are the ways to write it, `meaning` turns arguments into a condition.

    Attributes:
        name: The atom's name.
        signatures: Lists of parameters; the first that fits a call is taken.
        meaning: From arguments to a condition on `q`, `k`, `h`, `b`.
        doc: One sentence with the formula.
        outermost: It has no meaning inside `within` or `blockwise`.
    """

    name: str
    signatures: tuple[tuple[Parameter, ...], ...]
    meaning: Callable[[Arguments], Bool]
    doc: str
    outermost: bool = False

    def usage(self) -> str:
        """How to write it: `local(w, dilation=1) or local(left, right, dilation=1)`."""
        return usage(self.name, self.signatures)


def usage(name: str, signatures: tuple[tuple[Parameter, ...], ...]) -> str:
    """`name` with each of its lists of parameters."""
    return " or ".join(f"{name}({', '.join(map(str, s))})" if s else name for s in signatures)


@dataclass(frozen=True)
class Arguments:
    """Values by parameter, defaults filled in, read as plain Python.

    Attributes:
        atom: Where they were written.
        values: The value of each parameter of the signature.
        meaning: The meaning of a pattern that stands as an argument, on blocks of that many positions.
    """

    atom: Atom
    values: Mapping[str, Value]
    meaning: Callable[[Node, int], Bool]

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def integer(self, name: str) -> int:
        """An integer."""
        return number(self.values[name])

    def extent(self, name: str) -> int | None:
        """An integer, None for `inf`."""
        value = self.values[name]
        return None if isinstance(value, Infinity) else number(value)

    def flag(self, name: str) -> bool:
        """`true` or `false`."""
        match self.values[name]:
            case Flag(value):
                return value
            case Name() as other:
                raise unbound(other)
        raise self.wrong(f"{name} is true or false")

    def axes(self, name: str, rank: int) -> tuple[int, ...]:
        """An integer for each of `rank` axes; a single one serves all."""
        match self.values[name]:
            case IndexSet(items):
                values = tuple(number(item) for item in items)
            case Flag(value):
                values = (int(value),) * rank
            case value:
                values = (number(value),) * rank
        if len(values) != rank:
            raise self.wrong(f"{name} has {len(values)} entries, but the grid has {rank} axes")
        return values

    def rank(self, name: str) -> int:
        """How many axes a list has."""
        value = self.values[name]
        return len(value.items) if isinstance(value, IndexSet) else 1

    def indices(self, name: str) -> IndexSet:
        """A set."""
        value = self.values[name]
        if not isinstance(value, IndexSet):
            raise self.wrong(f"{name} is a set")
        return value

    def word(self, name: str) -> str:
        """The name of a tensor, or a choice."""
        value = self.values[name]
        if not isinstance(value, Name):
            raise self.wrong(f"{name} is a name")
        return value.name

    def documents(self) -> Documents:
        """The documents of `ids`, or those of `q_ids` and `k_ids`."""
        if "ids" in self:
            side = self._side("ids")
            return Documents(side, side)
        return Documents(replace(self._side("q_ids"), by_rows=True), self._side("k_ids"))

    def _side(self, name: str) -> Side:
        value = self.values[name]
        return Side(value.tensor.name, True) if isinstance(value, Segments) else Side(self.word(name))

    def pattern(self, name: str, block: int = 1) -> Bool:
        """The meaning of a pattern; with `block`, on block indices (q//block, k//block)."""
        value = self.values[name]
        if not isinstance(value, Node):
            raise self.wrong(f"{name} is a pattern")
        return self.meaning(value, block)

    def wrong(self, message: str) -> PatternError:
        """E027 at the atom."""
        return PatternError("E027", f"{self.atom.name}: {message}", span=self.atom.span, label="does not fit")


def number(value: Value | Slice | None) -> int:
    """The integer `value`.

    Raises:
        BindError: E030, a name without value.
    """
    match value:
        case Integer(integer):
            return integer
        case Name():
            raise unbound(value)
    raise PatternError("E020", f"an integer is needed where {value} stands", span=getattr(value, "span", None))


def unbound(name: Name) -> BindError:
    """E030."""
    hint = f"give its value when compiling: {name.name}=128"
    message = f"the name {name.name!r} has no value"
    return BindError("E030", message, span=name.span, label="an integer is needed here", hint=hint)
