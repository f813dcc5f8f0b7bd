"""Measured tiles as records: what they depend on, and what of a record is believed."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, fields
from functools import cache
from importlib import metadata
from typing import Any

from spattn.backends.triton.devices import described
from spattn.backends.triton.schedule import Job
from spattn.backends.triton.suited import bucket
from spattn.backends.triton.tiles import Tile

SIDES = frozenset((16, 32, 64, 128, 256))


def key_of(job: Job, text: str) -> str:
    """What a measured tile depends on, as a digest."""
    request = job.request
    widths = request.q.shape[-1], request.v.shape[-1]
    device = described(request.q.device).name
    parts = (
        "tiles",
        text,
        job.kind.name,
        device,
        _triton_version(),
        request.q.dtype,
        request.tf32,
        *widths,
        bucket(job),
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
    return {"tiles": [_numbers(tile) for tile in tiles], "microseconds": microseconds}


def _numbers(tile: Tile) -> list[int]:
    return [*map(int, astuple(tile))]


def tiles_in(record: dict[str, Any] | None, passes: int) -> tuple[Tile, ...] | None:
    """The tiles of a record; None where there is none, or it holds something else."""
    rows = record.get("tiles") if record else None
    if not isinstance(rows, list) or len(rows) != passes:
        return None
    tiles = tuple(map(Tile.of, rows)) if all(map(_is_numbers, rows)) else ()
    return tiles if tiles and all(map(_is_sound, tiles)) else None


def _is_numbers(row: Any) -> bool:
    return isinstance(row, list) and len(row) == len(fields(Tile)) and all(type(n) is int for n in row)


def _is_sound(tile: Tile) -> bool:
    sides = tile.block_m in SIDES and tile.block_n in SIDES and tile.num_warps in (1, 2, 4, 8, 16)
    return sides and 1 <= tile.num_stages <= 8 and 0 <= tile.registers <= 255 and 1 <= tile.splits <= 64
