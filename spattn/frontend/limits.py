"""What is refused before a grammar looks at it: texts too long or too deep, and characters that no pattern has."""

from __future__ import annotations

import unicodedata

from lark import Token, Tree

from spattn.errors import PatternError, Span
from spattn.frontend.tokens import PREFIXES, Piece, scan

MAX_CHARACTERS = 16 * 1024
MAX_DEPTH = 64
MAX_ATOMS = 512
MAX_ITEMS = 4096
MAX_DIGITS = 10
MAX_INTEGER = 2**31 - 1

_LEVELS = frozenset(
    ("union", "intersection", "difference", "negation", "call", "where")
    + ("either", "both", "inversion", "infix", "negative", "function", "lookup")
)
_FOREIGN = {
    "||": "use | or the word or",
    "&&": "use & or the word and",
    "!": "use ~ or the word not; YAML reads a leading ! as a tag",
    "^": "for a symmetric difference write (a | b) - (a & b)",
    "**": "powers are not part of the language",
}


def check_text(source: str) -> None:
    """Refuses what is too long, too deep or has characters without meaning.

    Raises:
        PatternError: E001, E006 to E009, E091 to E093.
    """
    first: PatternError | None = None
    joints = opened = prefixes = 0
    for piece in scan(source, MAX_CHARACTERS):
        joints += piece.text in {"|", "&", "and", "or"}
        opened += (piece.text in "([") - (piece.text in ")]")
        prefixes = prefixes + 1 if piece.text in PREFIXES or piece.text == "-" else 0
        if opened > MAX_DEPTH or prefixes > MAX_DEPTH:
            raise too_deep(source, piece.span)
        if joints >= MAX_ATOMS:
            raise too_many(source, piece.span)
        first = first or _strange(source, piece)
    if len(source) > MAX_CHARACTERS:
        raise PatternError(
            "E091",
            f"the pattern has {len(source)} characters; the limit is {MAX_CHARACTERS}",
            hint="give long lists of tokens as a tensor",
        )
    if first is not None:
        raise first
    if not source.strip(" \t\r\n"):
        raise PatternError("E001", "the pattern is empty", hint="a pattern looks like: local(128) | global([0])")


def check_tree(source: str, tree: Tree[Token]) -> None:
    """Refuses nesting that brackets do not show, such as long chains of differences.

    Raises:
        PatternError: E092, E093.
    """
    atoms = 0
    todo: list[tuple[Tree[Token] | Token | None, int]] = [(tree, 0)]
    while todo:
        item, depth = todo.pop()
        if not isinstance(item, Tree):
            continue
        depth += item.data in _LEVELS
        atoms += item.data in {"call", "where"}
        if depth > MAX_DEPTH:
            raise too_deep(source, span_of(item), "a - b - c is a - (b | c); join many terms by | or &")
        if atoms > MAX_ATOMS:
            raise too_many(source, span_of(item))
        todo.extend((child, depth) for child in item.children)


def span_of(item: Tree[Token] | Token) -> Span:
    """Where `item` stands in the text."""
    if isinstance(item, Token):
        return Span(item.start_pos or 0, item.end_pos or 0)
    return Span(item.meta.start_pos, item.meta.end_pos)


def too_deep(source: str, span: Span, hint: str = "") -> PatternError:
    """E092."""
    message = f"the pattern nests deeper than {MAX_DEPTH} levels"
    return PatternError("E092", message, source=source, span=span, label="one level too deep", hint=hint)


def too_many(source: str, span: Span) -> PatternError:
    """E093 for atoms."""
    message = f"the pattern has more than {MAX_ATOMS} atoms"
    hint = "put positions into one set, global([0, 7, ..]), or into a tensor"
    return PatternError("E093", message, source=source, span=span, label="from here on", hint=hint)


def _strange(source: str, piece: Piece) -> PatternError | None:
    match piece.kind:
        case "alien":
            return _alien(source, piece)
        case "comment":
            hint = "leave the comment out; in YAML put it outside the quotes"
            message = "a pattern has no comments"
            return PatternError("E008", message, source=source, span=piece.span, label="a comment begins", hint=hint)
        case "foreign":
            hint = _FOREIGN.get(piece.text, "the operators are ~ - & | and the words not, and, or")
            message = f"{piece.text!r} is no operator of patterns"
            return PatternError("E006", message, source=source, span=piece.span, label="not an operator", hint=hint)
        case "odd":
            hint = "a pattern is made of names, integers, ( ) [ ] , : = and the operators ~ - & |"
            message = f"the character {piece.text} has no meaning in a pattern"
            return PatternError("E009", message, source=source, span=piece.span, label="not understood", hint=hint)
    return None


def _alien(source: str, piece: Piece) -> PatternError:
    code = f"U+{ord(piece.text):04X}"
    name = unicodedata.name(piece.text, "a control character" if ord(piece.text) < 160 else "unnamed")
    plain = unicodedata.normalize("NFKC", piece.text)
    hint = f"type {plain!r}" if plain.isascii() and plain.isprintable() and plain.strip() else "delete or retype it"
    message = f"the character {code} ({name}) cannot stand in a pattern"
    return PatternError("E007", message, source=source, span=piece.span, label=code, hint=hint)
