"""Measured tiles as records: what they depend on, and what of a record is believed. Torch is not needed."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from spattn.codegen.languages import LANGUAGES
from spattn.codegen.tile import Tile
from spattn.cost.tile_choice import Question, bucket

if TYPE_CHECKING:
    from spattn.call.request import Records

SMALLEST = Tile(16, 16, 1, 1)
SIDES = frozenset((16, 32, 64, 128, 256))


@dataclass(frozen=True)
class Measured:
    """What was found of passes.

    Attributes:
        tiles: The best of each.
        microseconds: With these, all passes; None where a record does not say.
    """

    tiles: tuple[Tile, ...]
    microseconds: float | None


_known: dict[str, Measured] = {}


def known(key: str, records: Records, passes: int) -> Measured | None:
    """What was measured of so many passes, in this process or before it; None where nothing was."""
    return _known.get(key) or measured_in(records.read_json(key), passes)


def keep(key: str, found: Measured) -> None:
    """Remembers in this process."""
    _known[key] = found


def file(key: str, found: Measured, records: Records) -> None:
    """Remembers beyond it."""
    with suppress(OSError):  # a cache may cost time, never an answer
        records.write_json(key, record_of(found.tiles, found.microseconds))


def key_of(asked: Question, text: str) -> str:
    """What a measured tile depends on, as a digest; `text` is the module's source."""
    shape = asked.shape
    parts = (
        "tiles",
        text,
        asked.kind.name,
        asked.device.name,
        _triton_version(),
        shape.dtype,
        shape.tf32,
        shape.head_dim,
        shape.v_head_dim,
        bucket(asked),
    )
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


@cache
def _triton_version() -> str:
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "none"


def record_of(tiles: tuple[Tile, ...], microseconds: float | None) -> dict[str, Any]:
    """The tile of each pass as JSON, and how long all passes took with them."""
    return {"tiles": [asdict(tile) for tile in tiles], "microseconds": microseconds}


def measured_in(record: dict[str, Any] | None, passes: int) -> Measured | None:
    """What a record says; None where there is none, or it holds something else."""
    rows = record.get("tiles") if record else None
    if record is None or not isinstance(rows, list) or len(rows) != passes:
        return None
    tiles = tuple(Tile(**row) for row in rows) if all(map(_is_tile, rows)) else ()
    return Measured(tiles, _time_in(record)) if tiles and all(map(_is_sound, tiles)) else None


def _time_in(record: dict[str, Any]) -> float | None:
    time = record.get("microseconds")
    return float(time) if isinstance(time, int | float) and time >= 0 else None


def _is_tile(row: Any) -> bool:
    kinds = {one.name: type(getattr(SMALLEST, one.name)) for one in fields(Tile)}
    return isinstance(row, dict) and {name: type(value) for name, value in row.items()} == kinds


def _is_sound(tile: Tile) -> bool:
    sides = (
        tile.language in LANGUAGES
        and tile.block_m in SIDES
        and tile.block_n in SIDES
        and tile.num_warps in (1, 2, 4, 8, 16)
    )
    return sides and 1 <= tile.num_stages <= 8 and 0 <= tile.registers <= 255 and 1 <= tile.splits <= 64
