"""What reading one text shares: the names bound, the errors found so far, how a definition uses its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from spattn.errors import PatternError, Span, SpattnError
from spattn.expressions.nodes import Bool
from spattn.frontend.grammar import Item
from spattn.frontend.limits import span_of
from spattn.frontend.spec import AtomSpec, Kind, Parameter
from spattn.frontend.syntax import Atom, Node


@dataclass(frozen=True)
class Word:
    """A word of the prelude: `name(parameters)` stands for `body`."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Node
    doc: str

    @property
    def signatures(self) -> tuple[tuple[Parameter, ...], ...]:
        """The one way to write it, in the shape that atoms have."""
        return (self.parameters,)


@dataclass
class Context:
    """The state of reading one text.

    Attributes:
        source: The text.
        lookup: The table's row or the prelude's word of a name.
        names: All names that `lookup` knows, for suggestions.
        meaning: The meaning of a pattern, to find what only values can show to be wrong.
        bindings: Integers by name.
        layer: The number of the layer, if there is one.
        parameters: In the body of a definition, its parameters.
        kinds: How that body uses them.
        errors: What is wrong so far.
        used: Bindings that were needed.
        nesting: How many atoms the one being read stands in.
    """

    source: str
    lookup: Callable[[str], AtomSpec | Word | None]
    names: tuple[str, ...]
    meaning: Callable[[Node], Bool]
    bindings: Mapping[str, int] = field(default_factory=dict)
    layer: int | None = None
    parameters: frozenset[str] = frozenset()
    kinds: dict[str, Parameter] = field(default_factory=dict)
    errors: list[SpattnError] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    nesting: int = 0

    def fail(self, code: str, message: str, at: Item | Span, label: str = "", hint: str = "") -> None:
        """Notes an error."""
        span = at if isinstance(at, Span) else span_of(at)
        self.errors.append(PatternError(code, message, source=self.source, span=span, label=label, hint=hint))

    def check(self, atom: Atom) -> None:
        """Notes what the meaning of `atom` refuses."""
        try:
            self.meaning(atom)
        except SpattnError as error:
            error.source = self.source
            error.span = error.span or atom.span
            self.errors.append(error)

    def note(self, name: str, parameter: Parameter) -> None:
        """A definition's parameter `name` stands where `parameter` is wanted."""
        known = self.kinds.setdefault(name, parameter)
        narrow = parameter if parameter.kind is Kind.INTEGER else known
        minimum = max((p.minimum for p in (known, parameter) if p.minimum is not None), default=None)
        self.kinds[name] = replace(narrow, minimum=minimum)


def suggestion(name: str, known: tuple[str, ...]) -> str:
    """A hint at the known name that `name` may have been meant to be."""
    from difflib import get_close_matches

    if name.lower() in known:
        return f"names are in lower case: {name.lower()}"
    close = get_close_matches(name.lower()[:64], known, 1) or [short for short in known if name.startswith(short)]
    return f"did you mean {close[0]!r}?" if close else ""
