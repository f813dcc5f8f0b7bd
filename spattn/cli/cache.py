"""`spattnc cache`: the generated files on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spattn.cli.exits import no, say
from spattn.cli.options import JsonOption
from spattn.cli.output import write, write_json

if TYPE_CHECKING:
    from spattn.cache.store import Cache

app = typer.Typer(help="The generated files on disk.", no_args_is_help=True, rich_markup_mode=None)


@app.command("dir")
def directory(as_json: JsonOption = False) -> None:
    """Print the directory."""
    cache = _cache()
    if as_json:
        write_json("cache-dir", {"root": cache.root, "mode": cache.mode})
    elif cache.root is None:
        say("no directory: there is no home, and SPATTN_CACHE_DIR names none")
        raise no()
    else:
        write(str(cache.root))


@app.command("list")
def list_entries(as_json: JsonOption = False) -> None:
    """List the entries, least recently used first."""
    entries = _cache().entries()
    if as_json:
        rows: list[dict[str, Any]] = [{"path": e.path, "bytes": e.size, "age": round(e.age)} for e in entries]
        write_json("cache-list", {"entries": rows, "bytes": sum(e.size for e in entries)})
        return
    lines = [f"{e.size:>10}  {e.age / 3600:8.1f} h  {e.path.parent.name}/{e.path.name}" for e in entries]
    write([*lines, f"{sum(e.size for e in entries):>10}  bytes in {len(entries)} entries"])


@app.command()
def verify(as_json: JsonOption = False) -> None:
    """Check every entry against its digest. Exit status 1 if one fails."""
    bad = _cache().verify()
    _report("cache-verify", bad, "fails its check", as_json)
    if bad:
        raise no()


@app.command()
def prune(
    max_bytes: Annotated[int | None, typer.Option(min=0, help="Keep no more than this.")] = None,
    max_days: Annotated[float | None, typer.Option(min=0, help="Keep what was used in these days.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what is old or too much."""
    from spattn.cache.store import MAX_AGE, MAX_BYTES

    limits = MAX_BYTES if max_bytes is None else max_bytes, MAX_AGE if max_days is None else max_days * 86400
    _report("cache-prune", _cache().prune(*limits), "removed", as_json)


@app.command()
def clear(as_json: JsonOption = False) -> None:
    """Remove every entry."""
    _report("cache-clear", _cache().clear(), "removed", as_json)


def _cache() -> Cache:
    from spattn.cache.store import default_cache

    return default_cache()


def _report(schema: str, paths: list[Path], what: str, as_json: bool) -> None:
    if as_json:
        write_json(schema, {"paths": paths})
    else:
        write([*(f"{what}: {path}" for path in paths), f"{len(paths)} {what}" if paths else f"nothing {what}"])
