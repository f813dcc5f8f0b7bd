"""From text to a score."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache, partial
from numbers import Real

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken

from spattn._resources import GRAMMAR_DIR
from spattn.errors import BindError, PatternError, Span
from spattn.frontend.context import suggestion
from spattn.frontend.limits import MAX_DEPTH, span_of
from spattn.frontend.reserved import KEYWORDS
from spattn.scores.nodes import (
    FUNCTIONS,
    GREATEST_FLOAT,
    LEAST_FLOAT,
    VARIABLES,
    Expression,
    Function,
    Infix,
    Negative,
    Number,
    Read,
    Score,
    Term,
    Variable,
    walk,
)
from spattn.scores.whole import is_whole
from spattn.scores.words import WORDS, reads, refusal

MAX_CHARACTERS = 2048
MAX_TERMS = 16
FLOATS = f"numbers are 0, or from {LEAST_FLOAT:.4g} to {GREATEST_FLOAT:.4g} in size"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_ZERO = re.compile(r"[0.]+([eE].*)?")


def parse(text: object, bindings: Mapping[str, object] | None = None) -> Score:
    """The score that `text` writes.

    Args:
        text: A score such as `softcap(30) + alibi(slopes)`.
        bindings: Numbers for names of the text; other names are float tensors of a call.

    Raises:
        PatternError: The text is no score.
        BindError: A binding is no finite number or not in the range of float32, or a name of the text is taken.
    """
    if not isinstance(text, str):
        raise PatternError("E034", f"a score is a string, not a {type(text).__name__}", hint='score="softcap(30)"')
    numbers = {name: _number_of(name, value) for name, value in (bindings or {}).items()}
    score = _Reader(text, numbers).score(_tree(text))
    _check_ranks(text, score)
    return score


def names_of(text: object) -> frozenset[str]:
    """Whatever stands in the text as a name and may be bound."""
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        return frozenset()  # which `parse` refuses
    found = re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text, re.ASCII)
    return frozenset(found) - {*VARIABLES, *FUNCTIONS, *WORDS}


def _number_of(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        kind = type(value).__name__
        raise BindError("E031", f"{name} is bound to a {kind}, a number is needed", hint=f"write {name}=30")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BindError("E031", f"{name} is bound to {value}, and no finite number")
    if not _is_float32(number):
        raise BindError("E090", f"{name} is bound to {value}, beyond what float32 holds", hint=FLOATS)
    return number + 0.0


def _is_float32(value: float) -> bool:
    return value == 0 or LEAST_FLOAT <= abs(value) <= GREATEST_FLOAT


@cache
def _lark() -> Lark:
    return Lark.open(str(GRAMMAR_DIR / "score.lark"), parser="lalr", propagate_positions=True)


def _tree(text: str) -> Tree[Token]:
    if len(text) > MAX_CHARACTERS:
        raise PatternError("E091", f"the score has {len(text)} characters; the limit is {MAX_CHARACTERS}")
    if not text.strip(" \t\r\n"):
        raise PatternError("E001", "the score is empty", hint="a score looks like: softcap(30) + alibi(slopes)")
    try:
        return _lark().parse(text)
    except UnexpectedToken as stop:
        if stop.token.type == "$END":
            end = len(text.rstrip(" \t\r\n"))
            message, label, span = "the score ends too early", "something is missing here", Span(end, end)
        else:
            first = stop.token.start_pos or 0
            span = Span(first, first + len(stop.token))
            message, label = f"{str(stop.token)!r} cannot stand here", "not expected"
    except UnexpectedCharacters as stop:
        first = stop.pos_in_stream or 0
        span, character = Span(first, first + 1), text[first]
        shown = repr(character) if character.isascii() else f"U+{ord(character):04X}"
        message, label = f"the character {shown} has no meaning in a score", "not understood"
    hint = "a score is words joined by +, as in softcap(30) + bias(t[h, q - k])"
    raise PatternError("E010", message, source=text, span=span, label=label, hint=hint)


class _Reader:
    """Reads the trees of one text."""

    def __init__(self, source: str, numbers: Mapping[str, float]) -> None:
        self.source, self.numbers = source, numbers

    def fail(self, code: str, message: str, at: Tree[Token] | Token, hint: str = "", label: str = "") -> PatternError:
        return PatternError(code, message, source=self.source, span=span_of(at), hint=hint, label=label)

    def score(self, tree: Tree[Token]) -> Score:
        """All terms."""
        if len(tree.children) > MAX_TERMS:
            raise PatternError("E093", f"the score has {len(tree.children)} terms; the limit is {MAX_TERMS}")
        return Score(tuple(self.term(term) for term in tree.children if isinstance(term, Tree)))

    def term(self, tree: Tree[Token]) -> Term:
        """One word with its argument."""
        name, argument = tree.children
        assert isinstance(name, Token)
        spec = WORDS.get(str(name))
        if spec is None:
            hint = suggestion(str(name), tuple(WORDS)) or f"the words are {', '.join(WORDS)}"
            raise self.fail("E012", f"there is no word '{name}' of scores", name, hint, "unknown")
        if argument is None:
            raise self.fail("E021", f"{name}({spec.parameter}) has an argument", tree, f"{name}: {spec.doc}")
        found = self.expression(argument)
        why = refusal(str(name), found)
        if why is not None:
            raise self.fail(
                "E022", f"{spec.parameter} of {name}({spec.parameter}) is {why}", argument, label="not that"
            )
        return Term(str(name), found)

    def expression(self, item: Tree[Token] | Token, depth: int = 0) -> Expression:
        """Arithmetic."""
        if depth > MAX_DEPTH:
            raise self.fail("E092", f"the score nests deeper than {MAX_DEPTH} levels", item, label="one level too deep")
        if isinstance(item, Token):
            return self.number(item) if item.type == "NUMBER" else self.name(item)
        inner = partial(self.expression, depth=depth + 1)
        match item.data, item.children:
            case "infix", [left, Token() as operator, right]:
                return Infix(str(operator), inner(left), inner(right))
            case "negative", [operand]:
                found = inner(operand)
                return Number(0.0 - found.value) if isinstance(found, Number) else Negative(found)
            case "lookup", [Token() as name, *index]:
                return Read(self.tensor(name), tuple(self.index(one, inner(one)) for one in index))
            case "function", [Token() as name, *arguments]:
                return self.function(item, name, tuple(inner(one) for one in arguments if one is not None))
        raise self.fail("E010", "this cannot stand here", item)

    def number(self, token: Token) -> Number:
        """A number as it is written."""
        if not _NUMBER.fullmatch(token):
            raise self.fail("E010", f"{token!s} is no number", token, "numbers look like 30, 0.5, 1e-3")
        value = float(token)
        if not _is_float32(value) or (value == 0 and not _ZERO.fullmatch(token)):
            raise self.fail("E090", "a number is beyond what float32 holds", token, FLOATS, "out of range")
        return Number(value)

    def name(self, token: Token) -> Expression:
        """A variable, a bound number, or a tensor of one element."""
        if token in VARIABLES:
            return Variable(str(token))
        if token in self.numbers:
            return Number(self.numbers[str(token)])
        return Read(self.tensor(token), ())

    def tensor(self, token: Token) -> str:
        """The name of a float tensor."""
        name = str(token)
        if name in self.numbers:
            raise self.fail("E025", f"{name} is a number here, and read with an index", token, label="a number")
        if name in VARIABLES or name in FUNCTIONS or name in WORDS:
            raise self.fail("E027", f"{name} has a meaning of its own and names nothing else", token, label="reserved")
        if name in KEYWORDS:
            hint = f"choose another name, such as my_{name}"
            raise self.fail("E043", f"{name} is an argument of calls and no name for a score", token, hint, "reserved")
        return name

    def index(self, item: Tree[Token] | Token, node: Expression) -> Expression:
        """An index: whole numbers over q, k, h, b, that 64 bits hold."""
        for part in walk(node):
            match part:
                case Number(value) if value.is_integer():
                    continue
                case Variable(name) if name != "s":
                    continue
                case Negative() | Infix("+" | "-" | "*") | Function("min" | "max" | "abs"):
                    continue
            hint = "indices are whole numbers, q, k, h, b with + - * min max abs"
            raise self.fail("E025", "an index is no whole number", item, hint, "an index")
        if not is_whole(node):
            hint = "its numbers are below 2**31, and whatever positions and heads make of them below 2**63"
            raise self.fail("E090", "an index passes what integers hold", item, hint, "too large")
        return node

    def function(self, tree: Tree[Token], name: Token, arguments: tuple[Expression, ...]) -> Expression:
        """A function with as many arguments as it has."""
        count = FUNCTIONS.get(str(name))
        if count is None:
            hint = suggestion(str(name), tuple(FUNCTIONS)) or f"the functions are {', '.join(FUNCTIONS)}"
            raise self.fail("E012", f"there is no function '{name}' of scores", name, hint, "unknown")
        if len(arguments) != count:
            message = f"{name} has {count} argument{'s' * (count > 1)}, and {len(arguments)} are given"
            raise self.fail("E021", message, tree)
        return Function(str(name), arguments)


def _check_ranks(text: str, score: Score) -> None:
    """A tensor has the same number of indices wherever it is read."""
    from spattn.scores.words import steps

    ranks = reads(score)
    for step in steps(score):
        for part in walk(step):
            if isinstance(part, Read) and len(part.index) != ranks[part.tensor]:
                message = f"{part.tensor} is read with {len(part.index)} and with {ranks[part.tensor]} indices"
                raise PatternError("E025", message, hint=f"in {text!r}" if len(text) < 80 else "")
