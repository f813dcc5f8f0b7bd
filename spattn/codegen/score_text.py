"""A score in Triton: the lines that make a tile's scores of products, and those that bring gradients back.

Whole numbers stay whole, as they do in `spattn.scores.evaluation`: int32 where they fit, else int64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spattn.codegen.boxes import Line, line
from spattn.codegen.environment import code
from spattn.codegen.orientation import Orientation
from spattn.codegen.parameters import Floats, Parameters
from spattn.scores.derivative import ONE, ZERO, derivative
from spattn.scores.nodes import (
    LEAST_FLOAT,
    Expression,
    Function,
    Infix,
    Negative,
    Number,
    Read,
    Score,
    Variable,
    children,
    walk,
)
from spattn.scores.whole import BITS_32, bound, is_whole
from spattn.scores.words import steps

S = Variable("s")
FUNCTIONS = {"min": "least", "max": "greatest", "abs": "tl.abs", "exp": "tl.exp", "log": "tl.log"}
CONSTANT: Mapping[str, Callable[..., Any]] = {
    **{"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "min": np.minimum, "max": np.maximum},
    **{"abs": np.abs, "exp": np.exp, "log": np.log, "tanh": np.tanh},
}


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
    """The lines of a score where `tile` is the product of a tile of rows, of `heads`, and one of columns."""
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
        if not is_whole(node):
            return text
        number = text.strip("()")
        return text.replace(number, f"{number}.0") if number.lstrip("-").isdecimal() else f"tl.cast({text}, tl.float32)"

    def text(self, node: Expression, *, wide: bool = False) -> str:
        """The value: whole numbers as integers, of 64 bits where they are `wide`."""
        if not any(isinstance(part, Variable | Read) for part in walk(node)):
            return _literal(_constant(node))
        wide = wide or (bound(node) or 0) >= BITS_32
        match node:
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
        raise AssertionError(node)

    def _alike(self, operand: Expression, wide: bool, node: Expression) -> str:
        """An operand in the kind of numbers that its node has."""
        return self.text(operand, wide=wide) if is_whole(node) else self.as_float(operand)

    def _position(self, of: str) -> str:
        """Positions of queries or keys, as rows or columns of the tile."""
        return f"{of}_pos[:, None]" if of == self.side.row else f"{of}_at[None, :]"

    def _read(self, name: str, index: tuple[Expression, ...]) -> str:
        tensor = self.parameters.name(Floats(name, len(index)))
        places = [f"{tensor}_ptr"]
        for i, one in enumerate(index):
            places.append(f"clipped({self.text(one)}, {tensor}_size_{i}, {tensor}_stride_{i})")
        return f"tl.load({' + '.join(places)}).to(tl.float32)"


def _constant(node: Expression) -> float:
    """The value of arithmetic without variables: an int where it is whole, else a float32, infinite or NaN perhaps."""
    kind = np.int64 if is_whole(node) else np.float32
    given: list[Any] = [kind(_constant(part)) for part in children(node)]
    with np.errstate(all="ignore"):
        match node:
            case Number(value):
                return int(value) if is_whole(node) else value
            case Negative():
                found = -given[0]
            case Infix(name, _, _) | Function(name, _):
                found = CONSTANT[name](*given)
            case _:
                raise AssertionError(node)
    return int(found) if is_whole(node) else float(found)


def _literal(value: float) -> str:
    if not np.isfinite(value):
        return f'float("{value}")'
    if not isinstance(value, int) and abs(value) < LEAST_FLOAT:
        value = 0.0  # which Triton would take for a float64
    text = str(value if isinstance(value, int) else np.float32(value))
    return text if value >= 0 else f"({text})"
