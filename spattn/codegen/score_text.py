"""A score in Triton: the lines that make a tile's scores of products, and those that bring gradients back.

Whole numbers stay whole, as they do in `spattn.scores.evaluation`: int32 where they fit, else int64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from spattn.codegen.boxes import Line, line
from spattn.codegen.environment import code
from spattn.codegen.orientation import Orientation
from spattn.codegen.parameters import Floats, Parameters
from spattn.scores.derivative import ONE, ZERO, derivative
from spattn.scores.nodes import Expression, Function, Infix, Negative, Number, Read, Score, Variable, children, walk
from spattn.scores.words import steps

S = Variable("s")
WHOLE, EXACT = 2**31, 2**53  # whole numbers of 32 bits, and of floats
POSITION, HEAD = 2**30 - 1, 2**20  # greater than any position, and than any head or batch entry that a launch has
BOUNDS: Mapping[str, int] = {"q": POSITION, "k": POSITION, "h": HEAD, "b": HEAD}
FUNCTIONS = {"min": "least", "max": "greatest", "abs": "tl.abs", "exp": "tl.exp", "log": "tl.log"}
CONSTANT: Mapping[str, Callable[..., np.float64]] = {
    **{"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "min": np.minimum, "max": np.maximum},
    **{"abs": np.abs, "exp": np.exp, "log": np.log, "tanh": np.tanh},
}
FLOATS = ("exp", "tanh", "log", "less")  # functions of floats alone


@dataclass(frozen=True)
class ScoreText:
    """The lines of a score; every value is Triton.

    Attributes:
        before: Elements that a loop reads once, by head and batch entry.
        scores: From `s_0`, the scaled product, to the new score, the last name.
        last: That name.
        gradients: `ds` of the new score made that of the product.
    """

    before: tuple[Line, ...]
    scores: tuple[Line, ...]
    last: str
    gradients: tuple[Line, ...]


def score_text(score: Score, side: Orientation, parameters: Parameters, tile: str, heads: str = "h") -> ScoreText:
    """The lines of a score where `tile` is the product of a tile of rows and one of columns, `heads` whose these are."""
    chain = steps(score)
    alike = {part for step in chain for part in walk(step) if isinstance(part, Read) and _is_alike(part)}
    reads = {part: f"of_head_{i}" for i, part in enumerate(sorted(alike, key=repr))}
    printer = _Printer(side, parameters, {}, heads)
    before = tuple(line(name, printer.text(part)) for part, name in reads.items())
    scores, gradients = [], []
    for i, step in enumerate(chain):
        printer = _Printer(side, parameters, reads, heads, f"s_{i}")
        new = printer.as_float(step)
        if S not in walk(step):
            new = f"tl.broadcast_to(tl.cast({new}, tl.float32), {tile}.shape)"
        scores.append(line(f"s_{i + 1}", new))
        factor = derivative(step, S)
        if factor == ZERO:
            gradients.append(line("ds", "tl.zeros_like(ds)"))
        elif factor != ONE:
            # where nothing is weighed a derivative may be infinite
            gradients.append(line("ds", f"tl.where(p != 0.0, ds * ({printer.as_float(factor)}), 0.0)"))
    return ScoreText(before, tuple(scores), code(f"s_{len(chain)}"), tuple(reversed(gradients)))


def _is_alike(read: Read) -> bool:
    """Is it the same for all pairs of a head?"""
    return all(not isinstance(part, Variable) or part.name in ("h", "b") for one in read.index for part in walk(one))


@dataclass(frozen=True)
class _Printer:
    """Prints arithmetic over the pairs of a tile.

    Attributes:
        side: Whose rows are queries, or keys.
        parameters: Collects the tensors that are read.
        reads: Elements that have names.
        heads: The head that rows are of, or a column of each row's.
        s: The name of the score before.
    """

    side: Orientation
    parameters: Parameters
    reads: Mapping[Read, str]
    heads: str = "h"
    s: str = ""

    def as_float(self, node: Expression) -> str:
        """The value as float32."""
        text = self.text(node)
        if not _is_whole(node):
            return text
        number = text.strip("()")
        return text.replace(number, f"{number}.0") if number.lstrip("-").isdecimal() else f"tl.cast({text}, tl.float32)"

    def text(self, node: Expression, *, wide: bool = False) -> str:
        """The value: whole numbers as integers, of 64 bits where they are `wide`."""
        if not isinstance(node, Number | Variable | Read) and not any(
            isinstance(part, Variable | Read) for part in walk(node)
        ):
            return _literal(_constant(node), whole=_is_whole(node))
        wide = wide or (_is_whole(node) and _bound(node) >= WHOLE)
        match node:
            case Number(value):
                return _literal(value, whole=_is_whole(node))
            case Variable("s"):
                return self.s
            case Variable(name):
                own = {"q": self._position("q"), "k": self._position("k"), "h": self.heads}.get(name, name)
                return f"tl.cast({own}, tl.int64)" if wide else own
            case Read(name, index):
                return self.reads[node] if node in self.reads else self._read(name, index)
            case Negative(operand):
                return f"(-{self.text(operand, wide=wide)})"
            case Infix(operator, left, right):
                return f"({self._alike(left, wide, node)} {operator} {self._alike(right, wide, node)})"
            case Function(name, arguments):
                given = [self._alike(one, wide, node) for one in arguments]
                return f"{FUNCTIONS.get(name, name)}({', '.join(given)})"

    def _alike(self, operand: Expression, wide: bool, node: Expression) -> str:
        """An operand in the kind of numbers that its node has."""
        return self.text(operand, wide=wide) if _is_whole(node) else self.as_float(operand)

    def _position(self, of: str) -> str:
        """Positions of queries or keys, as rows or columns of the tile."""
        return f"{of}_pos[:, None]" if of == self.side.row else f"{of}_at[None, :]"

    def _read(self, name: str, index: tuple[Expression, ...]) -> str:
        tensor = self.parameters.name(Floats(name, len(index)))
        places = [f"{tensor}_ptr"]
        for i, one in enumerate(index):
            places.append(f"clipped({self.text(one)}, {tensor}_size_{i}, {tensor}_stride_{i})")
        return f"tl.load({' + '.join(places)}).to(tl.float32)"


def _is_whole(node: Expression) -> bool:
    match node:
        case Number(value):
            return value.is_integer() and abs(value) < WHOLE
        case Variable(name):
            return name != "s"
        case Read():
            return False
        case Infix("/", _, _):
            return False
        case Function(name, _) if name in FLOATS:
            return False
    return all(map(_is_whole, children(node)))


def _bound(node: Expression) -> int:
    """What a whole value does not pass, whatever its sign."""
    parts = [_bound(part) for part in children(node)]
    match node:
        case Number(value):
            return int(abs(value))
        case Variable(name):
            return BOUNDS[name]
        case Infix("*", _, _):
            return max(parts[0] * parts[1], *parts)
        case Infix():
            return sum(parts)
        case Function("sign", _):
            return max(1, *parts)
    return max(parts)


def _constant(node: Expression) -> float:
    """The value of arithmetic without variables; infinite or NaN as floats have it."""
    given = [np.float64(_constant(part)) for part in children(node)]
    with np.errstate(all="ignore"):
        match node:
            case Number(value):
                return value
            case Negative():
                return float(-given[0])
            case Infix(name, _, _) | Function(name, _):
                return float(CONSTANT[name](*given))
    raise AssertionError(node)


def _literal(value: float, *, whole: bool) -> str:
    if whole and abs(value) < EXACT:
        return str(int(value)) if value >= 0 else f"({int(value)})"
    if not np.isfinite(value):
        return f'float("{value}")'
    return repr(float(value)) if value >= 0 else f"({float(value)!r})"
