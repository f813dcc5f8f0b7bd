"""`spattnc atoms`: the words of the language."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spattn.cli.options import JsonOption
from spattn.cli.output import write, write_json


def atoms(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, in full.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the atoms of the language and the published patterns that it has words for."""
    from spattn.frontend.prelude import names

    chosen = names() if name is None else (_known(name),)
    rows = [_row(one) for one in chosen]
    if as_json:
        write_json("atoms", {"atoms": rows})
    elif name is not None:
        write(_in_full(rows[0]))
    else:
        write(_table(rows))


def _known(name: str) -> str:
    from spattn.frontend.context import suggestion
    from spattn.frontend.prelude import names

    if name not in names():
        raise typer.BadParameter(f"there is no {name!r}; {suggestion(name, names()) or 'spattnc atoms lists them'}")
    return name


def _row(name: str) -> dict[str, Any]:
    from spattn.frontend.atoms import ATOMS
    from spattn.frontend.prelude import words
    from spattn.frontend.spec import usage

    if name in ATOMS:
        return {"name": name, "kind": "atom", "usage": ATOMS[name].usage(), "doc": ATOMS[name].doc}
    word = words()[name]
    return {
        "name": name,
        "kind": "word",
        "usage": usage(name, word.signatures),
        "doc": word.doc,
        "definition": str(word.body),
    }


def _in_full(row: dict[str, Any]) -> list[str]:
    stands = [f"  = {row['definition']}"] if "definition" in row else []
    return [row["usage"], *stands, f"  {row['doc']}"]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Atoms, then words; a documentation beside each, or below it where the usage is long."""
    lines: list[str] = []
    for kind, title in (("atom", "Atoms"), ("word", "Published patterns")):
        lines += ["", title] if lines else [title]
        for row in rows:
            if row["kind"] == kind:
                short = len(row["usage"]) <= 36
                lines += (
                    [f"  {row['usage']:<38}{row['doc']}"] if short else [f"  {row['usage']}", f"{'':40}{row['doc']}"]
                )
    return lines
