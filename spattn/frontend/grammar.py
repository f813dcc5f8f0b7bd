"""The door to Lark: text in, a tree of shapes out, every refusal as a `PatternError`.

The grammar is loaded at the first call, not at import. LALR builds its trees with a stack of its own, so no depth of
nesting makes Python recurse.
"""

from __future__ import annotations

from functools import cache

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken

from spattn._resources import GRAMMAR_DIR
from spattn.frontend.diagnosis import diagnose
from spattn.frontend.limits import check_text, check_tree

Item = Tree[Token] | Token


@cache
def _lark() -> Lark:
    path = str(GRAMMAR_DIR / "pattern.lark")
    return Lark.open(path, parser="lalr", start=["start", "definition"], propagate_positions=True)


def parts(tree: Tree[Token]) -> list[Item | None]:
    """What is below `tree`, None where something optional was left out."""
    return list(tree.children)


def tree_of(source: str, start: str = "start") -> Tree[Token]:
    """The tree of `source`.

    Raises:
        PatternError: The text has not the shape of a pattern, or passes a limit.
    """
    check_text(source)
    try:
        tree = _lark().parse(source, start=start)
    except UnexpectedToken as stop:
        position = len(source) if stop.token.type == "$END" else stop.token.start_pos or 0
        raise diagnose(source, position) from None
    except UnexpectedCharacters as stop:
        raise diagnose(source, stop.pos_in_stream or 0) from None
    check_tree(source, tree)
    return tree
