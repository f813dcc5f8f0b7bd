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
    a, b = (_parsed(text, settings, layer) for text in (first, second))
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


def _parsed(text: str, settings: list[str] | None, layer: int | None) -> Pattern:
    """One of the two: of the bindings, those whose names it has."""
    from spattn.errors import BindError
    from spattn.pattern import parse

    text, bound = pattern_text(text), bindings(settings)
    for name in tuple(bound):
        try:
            parse(text, layer, **{name: bound[name]})
        except BindError as error:
            if error.code == "E038":
                del bound[name]
        except ValueError:
            continue
    return parse(text, layer, **bound)


def _relation(a: Pattern, b: Pattern) -> str:
    if b.contains(a):
        return "subset"
    return "superset" if a.contains(b) else "different"
