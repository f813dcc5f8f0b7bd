"""`spattnc diff`: do two patterns allow the same pairs?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from spattn.cli.exits import no
from spattn.cli.options import JsonOption, LayerOption, PatternArgument, SetOption
from spattn.cli.output import write, write_json
from spattn.cli.patterns import bindings, pattern_text

if TYPE_CHECKING:
    from spattn.pattern import Pattern

SENTENCES = {
    "equal": "equal: both allow the same pairs, whatever the length",
    "subset": "the first is a proper subset of the second",
    "superset": "the second is a proper subset of the first",
    "different": "different: each allows pairs that the other does not",
}


def diff(
    first: PatternArgument,
    second: PatternArgument,
    settings: SetOption = None,
    layer: LayerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove two patterns equal, or show a pair in which they differ. Exit status 1 if they differ.

    A binding is for whichever pattern has the name.
    """
    a, b = _both((pattern_text(first), pattern_text(second)), settings, layer)
    witness = a.difference_witness(b)
    relation = "equal" if witness is None else _relation(a, b)
    if as_json:
        found = None if witness is None else asdict(witness)
        write_json("diff", {"relation": relation, "first": str(a), "second": str(b), "witness": found})
    else:
        write(SENTENCES[relation])
        if witness is not None:
            where = "first" if witness.first else "second"
            write(f"in the {where} alone: {witness}")
    if witness is not None:
        raise no()


def _both(texts: tuple[str, str], settings: list[str] | None, layer: int | None) -> tuple[Pattern, Pattern]:
    """The two patterns, each with the bindings whose names it has; a name that neither has is the first one's error."""
    from spattn.frontend.tokens import scan
    from spattn.pattern import parse

    bound = bindings(settings)
    written = [{piece.text for piece in scan(text) if piece.kind == "name"} for text in texts]
    strange = bound.keys() - written[0] - written[1]
    first, second = (
        parse(text, layer, **{name: value for name, value in bound.items() if name in names})
        for text, names in zip(texts, (written[0] | strange, written[1]), strict=True)
    )
    return first, second


def _relation(a: Pattern, b: Pattern) -> str:
    if b.contains(a):
        return "subset"
    return "superset" if a.contains(b) else "different"
