"""Bool -> integer set: the affine fragment as text for isl, and isl's answers back as expressions.

isl has worst cases, so every question is asked under a cap on its operations; `Sets.ask` answers None over the cap, and
whoever asks has a safe answer ready. Some calls of isl do not survive the cap: they read a null pointer or free memory
twice. They are made by `Sets.unbroken`, without a cap, and their operands are kept small instead. One context a
compilation: isl's default context is shared and not thread-safe.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from spattn.expressions.algebra import (
    add,
    children,
    conj,
    disj,
    eq,
    floordiv,
    le,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    negate,
    scale,
    select,
    sub,
    subexpressions,
    substitute,
    substitute_bool,
    symbols,
)
from spattn.expressions.nodes import (
    FALSE,
    KV_LEN,
    TRUE,
    And,
    Bool,
    Eq,
    Expr,
    FloorDiv,
    Int,
    InTable,
    Le,
    Length,
    Max,
    Member,
    Min,
    Mod,
    Mul,
    Node,
    Not,
    Or,
    Read,
    Relative,
    SameSegment,
    Select,
    Sum,
    Sym,
    Truth,
)
from spattn.relation.lengths import rising

try:
    import islpy
except ImportError:  # no wheel for Windows
    islpy = None  # type: ignore[assignment]
isl: Any = islpy

if TYPE_CHECKING:
    IslMap = Any
    IslSet = Any

T = TypeVar("T")
OPERATIONS = 20_000  # a step of an ordinary pattern needs 1k to 5k (measured over 24 patterns)
MAX_PARTS = 24  # basic sets of what is asked without a cap
MAX_SEARCH = 256  # product of the coefficients of variables that isl has yet to write as floors: 4224 took 8 s
MAX_OPTIMUM = 4096  # the same of all floors, where an optimum is sought: 294912 took more than a minute
PATIENCE = 32  # questions that may meet the cap; after them none is asked any more
available = isl is not None


def is_affine(node: Bool) -> bool:
    """Can isl hold `node`: sums, floors and remainders by constants, minima, maxima, and nothing read from a tensor?"""
    for part in subexpressions(node):
        match part:
            case Mul() | Read() | Length() | Member() | InTable() | SameSegment() | Relative() | Select():
                return False
            case FloorDiv(_, divisor) | Mod(_, divisor) if not isinstance(divisor, Int) or divisor.value < 1:
                return False
    return True


def isl_text(node: Bool | Expr) -> str:
    """An affine expression in isl's notation; only integers and our own names can occur in it."""
    match node:
        case Int(value):
            return str(value)
        case Sym(name):
            assert name.isidentifier()
            return name
        case Sum(terms, constant):
            parts = [f"{coefficient}*({isl_text(term)})" for term, coefficient in terms]
            return " + ".join([*parts, f"({constant})"])
        case FloorDiv(dividend, Int(divisor)):
            return f"floor(({isl_text(dividend)})/{divisor})"
        case Mod(dividend, Int(divisor)):
            return f"(({isl_text(dividend)}) mod {divisor})"
        case Min(args):
            return f"min({', '.join(map(isl_text, args))})"
        case Max(args):
            return f"max({', '.join(map(isl_text, args))})"
        case Truth(value):
            return "1=1" if value else "1=0"
        case Le(left, right):
            return f"{isl_text(left)} <= {isl_text(right)}"
        case Eq(left, right):
            return f"{isl_text(left)} = {isl_text(right)}"
        case And(args):
            return " and ".join(f"({isl_text(arg)})" for arg in args)
        case Or(args):
            return " or ".join(f"({isl_text(arg)})" for arg in args)
        case Not(arg):
            return f"not ({isl_text(arg)})"
    raise AssertionError(f"not affine: {node!r}")


class TooHard(ValueError):
    """More than is asked without a cap."""


class Sets:
    """A context and the questions that are asked in it.

    Attributes:
        capped: Names of the questions that met the cap.
        lengths: Parameters that stand for floors and remainders of the length, such as the number of blocks: isl need
            not know how they are made, and its answers stay short.
    """

    def __init__(self, operations: int = OPERATIONS) -> None:
        self.context = isl.Context()
        self.operations = operations
        self.capped: list[str] = []
        self.lengths: dict[str, Expr] = {}
        self._parsed: dict[str, Any] = {}
        self._cap = 0

    def ask(self, what: str, question: Callable[[], T]) -> T | None:
        """The answer, or None where isl needs more operations than it may have.

        A cap shows as isl's own error, but also as a syntax error of a parse or as None where text was due.
        """
        if len(self.capped) >= PATIENCE:
            return None
        self.context.reset_operations()
        self._set_cap(self.operations)
        try:
            return question()
        except (isl.Error, TypeError, ValueError):
            self.capped.append(what)
            return None
        finally:
            self._set_cap(0)
            self.context.reset_operations()

    def _set_cap(self, operations: int) -> None:
        self._cap = operations
        self.context.set_max_operations(operations)

    def unbroken(self, parts: Any, question: Callable[[], T]) -> T:
        """The answer of a call of isl that does not survive the cap; what it takes counts for the next call.

        Args:
            parts: The set, map or piecewise expression that the call is about.
            question: The call.

        Raises:
            TooHard: There are too many parts to ask without a cap.
        """
        if _count_parts(parts) > MAX_PARTS:
            raise TooHard
        self.context.set_max_operations(0)
        try:
            return question()
        finally:
            self.context.set_max_operations(self._cap)

    def explicit(self, points: Any) -> Any:
        """A set or map whose variables are all floors: isl's subtraction does not survive a cap in finding these.

        Raises:
            TooHard: There are too many to find without a cap.
        """
        if max(map(_search, _basics(points)), default=0) > MAX_SEARCH:
            raise TooHard
        return self.unbroken(points, points.compute_divs)

    def optimum(self, points: IslSet, low: bool) -> Any:
        """The least (greatest) element of a one-dimensional set, which isl does not survive the cap in finding.

        Raises:
            TooHard: It takes too long to find without a cap.
        """
        if max((_search(basic, every=True) for basic in _basics(points)), default=0) > MAX_OPTIMUM:
            raise TooHard
        return self.unbroken(points, lambda: points.dim_min(0) if low else points.dim_max(0))

    def map(self, text: str) -> IslMap:
        """A map from isl's notation."""
        if text not in self._parsed:
            self._parsed[text] = isl.Map(text, context=self.context)
        return self._parsed[text]

    def set(self, text: str) -> IslSet:
        """A set from isl's notation."""
        if text not in self._parsed:
            self._parsed[text] = isl.Set(text, context=self.context)
        return self._parsed[text]

    def pairs(self, condition: Bool) -> IslMap | None:
        """{[q] -> [k]} where an affine `condition` holds; None over the cap."""
        condition = substitute_bool(condition, self._named_lengths(condition))
        names = sorted(symbols(condition) - {"q", "k"})
        parameters = f"[{', '.join(names)}] -> " if names else ""
        text = f"{parameters}{{ [q] -> [k] : {isl_text(condition)} }}"
        return self.ask("parse", lambda: self.map(text).coalesce())

    def _named_lengths(self, condition: Bool) -> dict[Node, Node]:
        """The outermost floors and remainders of the length alone, with their names."""
        found: dict[Node, Node] = {}
        todo: list[Node] = [condition]
        while todo:
            node = todo.pop()
            if isinstance(node, FloorDiv | Mod) and symbols(node) == {"kv_len"}:
                known = (name for name, length in self.lengths.items() if length == node)
                name = next(known, f"length_{len(self.lengths)}")
                self.lengths[name] = node
                found[node] = Sym(name)
            else:
                todo.extend(children(node))
        return found

    def facts(self, names: Iterable[str]) -> str:
        """What holds for these parameters, in isl's notation, where there is a key at all."""
        parts = ["kv_len >= 1"] if "kv_len" in names else []
        for name in names:
            match self.lengths.get(name):
                case Mod(_, Int(d)):
                    parts.append(f"0 <= {name} < {d}")
                case FloorDiv(dividend, Int(d)) as length:
                    least = substitute(length, {KV_LEN: Int(1)})
                    parts += [f"{name} >= {least.value}"] if isinstance(least, Int) and rising(length) else []
                    if "kv_len" in names and symbols(dividend) == {"kv_len"} and is_affine(le(0, dividend)):
                        parts.append(f"{d}*{name} <= {isl_text(dividend)} < {d}*{name} + {d}")
        return " and ".join(parts)

    def condition(self, pairs: IslMap, context: IslSet | None = None) -> Bool | None:
        """A map {[q] -> [k]} back as a condition."""
        return self.ask("print", lambda: self._condition_of(pairs.wrap().flatten(), context))

    def parameters_condition(self, domain: IslSet, context: IslSet) -> Bool:
        """A set of parameters as a condition, given that `context` holds."""
        return self._condition_of(domain, context)

    def _condition_of(self, points: IslSet, context: IslSet | None) -> Bool:
        count = points.dim(isl.dim_type.set)
        if count:
            points = points.move_dims(isl.dim_type.param, points.dim(isl.dim_type.param), isl.dim_type.set, 0, count)
        points = points.params()
        if points.plain_is_universe():
            return TRUE
        if points.is_empty():
            return FALSE
        build = isl.AstBuild.from_context(self.set("{ : }") if context is None else context)
        # what the context implies comes back as the number 1
        return _boolean(from_ast(self.unbroken(points, lambda: build.expr_from_set(points)), self.lengths))


def _basics(points: Any) -> list[Any]:
    """The basic sets or maps of a set or map."""
    return list(points.get_basic_sets() if isinstance(points, isl.Set) else points.get_basic_maps())


def _count_parts(parts: Any) -> int:
    return int(parts.n_piece()) if isinstance(parts, isl.PwAff) else len(_basics(parts))


def _search(basic: Any, every: bool = False) -> int:
    """How long isl looks for the unknown (`every`) floors of a basic set or map: for two, by their coefficients."""
    points = basic.wrap() if isinstance(basic, isl.BasicMap) else basic
    local = points.get_local_space()
    unknown = [i for i in range(local.dim(isl.dim_type.div)) if every or not _is_known(local, i)]
    if len(unknown) < 2:
        return len(unknown)
    rows = points.get_constraints()
    return math.prod(max(abs(_coefficient(row, i)) for row in rows) for i in unknown)


def _is_known(local: Any, i: int) -> bool:
    try:
        local.get_div(i)
    except isl.Error:
        return False
    return True


def _coefficient(row: Any, i: int) -> int:
    return int(row.get_coefficient_val(isl.dim_type.div, i).to_python())


_ARITHMETIC: dict[str, Callable[..., Expr]] = {
    "max": maximum,
    "min": minimum,
    "add": add,
    "sub": sub,
    "mul": mul,
    "fdiv_q": floordiv,
    "pdiv_q": floordiv,
    "div": floordiv,
    "pdiv_r": mod,
    "zdiv_r": mod,
    "minus": lambda x: scale(x, -1),
}
_LOGIC: dict[str, Callable[..., Bool]] = {
    "and_": conj,
    "and_then": conj,
    "or_": disj,
    "or_else": disj,
    "eq": eq,
    "le": le,
    "lt": lt,
    "ge": lambda x, y: le(y, x),
    "gt": lambda x, y: lt(y, x),
}


def from_ast(ast: Any, names: Mapping[str, Expr]) -> Expr | Bool:
    """isl's syntax tree as an expression; `names` are parameters that stand for one."""
    kind = ast.get_type()
    if kind == isl.ast_expr_type.int:
        return Int(int(ast.get_val().to_python()))
    if kind == isl.ast_expr_type.id:
        name = ast.get_id().get_name()
        return names.get(name) or Sym(name)
    name = ast.op_get_type().name
    args: list[Any] = [from_ast(ast.op_get_arg(i), names) for i in range(ast.op_get_n_arg())]
    if name in ("cond", "select"):
        return select(_boolean(args[0]), args[1], args[2])
    if name in _ARITHMETIC:
        return _ARITHMETIC[name](*args)
    if name in ("and_", "and_then", "or_", "or_else"):
        args = [_boolean(arg) for arg in args]
    return _LOGIC[name](*args)


def _boolean(value: Expr | Bool) -> Bool:
    return negate(eq(value, 0)) if isinstance(value, Expr) else value


def piecewise(pieces: Any, context: IslSet, sets: Sets) -> Expr:
    """isl's piecewise affine expression; one that is a maximum or minimum of its pieces is recognised as such."""
    pieces = pieces.gist(context).coalesce()
    build = isl.AstBuild.from_context(context)

    def plain(value: Any) -> Expr:
        result = from_ast(sets.unbroken(value, lambda: build.expr_from_pw_aff(value)), sets.lengths)
        assert isinstance(result, Expr)
        return result

    if pieces.n_piece() == 1:
        return plain(pieces)
    distinct: list[Any] = []
    for _, piece in pieces.get_pieces():
        value = isl.PwAff.from_aff(piece)
        if not any(value.is_equal(other) for other in distinct):
            distinct.append(value)
    domain = pieces.domain()
    if not domain.is_params():
        return plain(pieces)

    def same(value: Any) -> bool:
        return bool(value.intersect_params(domain).is_equal(pieces.intersect_params(domain)))

    for name, node in (("max", maximum), ("min", minimum)):
        value = distinct[0]
        for other in distinct[1:]:
            value = getattr(value, name)(other)
        if same(value):
            return node(*map(plain, distinct))
    if len(distinct) == 3:
        for x, y, z in itertools.permutations(distinct):
            for outer, inner in ((maximum, minimum), (minimum, maximum)):
                names = ("max", "min") if outer is maximum else ("min", "max")
                if same(getattr(getattr(x, names[1])(y), names[0])(z)):
                    return outer(inner(plain(x), plain(y)), plain(z))
    return plain(pieces)
