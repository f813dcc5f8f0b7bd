"""The whole road in one function.

| stage | from | to | by |
|---|---|---|---|
| 1 parse | text | `Node`: the pattern as written, names bound | `frontend.parser` |
| 2 mean | Node | `Bool` over q, k, h, b | `frontend.meaning` |
| 3 part | Bool | a Bool for each group of heads and batch entries | `relation.heads` |
| 4 plan | Bool | `Layout`: passes, walks, ranges; no length in it | `layout.planner` |
| 5 emit | Layout | `ModuleSource`: text, deterministic to the byte | `codegen.module` |
| 6 load | ModuleSource | kernels, from a file of the cache | `backends` |

Each stage can be looked at (`spattnc emit --stage`) and run against the oracle.
"""

from __future__ import annotations

from functools import lru_cache

from spattn.codegen.decode import DecodeSource, decode_source
from spattn.codegen.languages import LANGUAGES
from spattn.codegen.module import ModuleSource, backward_source, module_source
from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import Bool
from spattn.frontend.meaning import free_names, meaning
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Node
from spattn.layout.ir import Layout
from spattn.layout.planner import plan
from spattn.relation.heads import pair_conditions, specialised
from spattn.scores.nodes import Score


@frozen
class Compiled:
    """A pattern after stage 3.

    Attributes:
        text: The pattern as it prints.
        condition: Its meaning.
        pair_conditions: What parts heads and batch entries into groups.
        roles: Free names and what each is, as of `free_names`.
        score: What becomes of the scores before the mask.
    """

    text: str
    condition: Bool
    pair_conditions: tuple[Bool, ...]
    roles: tuple[tuple[str, str], ...]
    score: Score | None = None

    def layout(self, values: tuple[bool, ...] = (), direction: str = "queries", by_residue: bool = True) -> Layout:
        """Stage 4, for the group of heads in which the pair conditions have these values; see `layout.planner.plan`."""
        return _layout(self.condition, tuple(zip(self.pair_conditions, values, strict=True)), direction, by_residue)

    def source(self, values: tuple[bool, ...] = (), by_residue: bool = True, language: str = "triton") -> ModuleSource:
        """Stage 5, in a language."""
        return _source(self.layout(values, by_residue=by_residue), self.text, language, self.score)

    def decode_source(self, values: tuple[bool, ...] = (), language: str = "triton") -> DecodeSource:
        """Stage 5 for a decoder's steps."""
        return _decode_source(self.layout(values), self.text, language, self.score)

    def backward_source(
        self, values: tuple[bool, ...] = (), by_residue: bool = True, language: str = "triton"
    ) -> ModuleSource:
        """Stage 5 for the gradients, along the layout and its transposition."""
        along, across = (self.layout(values, direction, by_residue) for direction in ("queries", "keys"))
        return _backward_source(along, across, self.text, language, self.score)


def compile_pattern(
    pattern: str | Node, layer: int | None = None, score: Score | None = None, **bindings: int
) -> Compiled:
    """Stages 1 to 3.

    Raises:
        PatternError: The text is no pattern.
        BindError: A name is missing or of the wrong kind.
    """
    node = parse(pattern, bindings, layer) if isinstance(pattern, str) else pattern
    condition = meaning(node)
    return Compiled(str(node), condition, pair_conditions(condition), tuple(free_names(node).items()), score)


@lru_cache(maxsize=512)
def _layout(condition: Bool, known: tuple[tuple[Bool, bool], ...], direction: str, by_residue: bool) -> Layout:
    return plan(specialised(condition, dict(known)), direction, by_residue)


@lru_cache(maxsize=512)
def _source(layout: Layout, text: str, language: str, score: Score | None) -> ModuleSource:
    return module_source(layout, text, LANGUAGES[language], score)


@lru_cache(maxsize=512)
def _decode_source(layout: Layout, text: str, language: str, score: Score | None) -> DecodeSource:
    return decode_source(layout, text, LANGUAGES[language], score)


@lru_cache(maxsize=512)
def _backward_source(layout: Layout, transposed: Layout, text: str, language: str, score: Score | None) -> ModuleSource:
    return backward_source(layout, transposed, text, LANGUAGES[language], score)
