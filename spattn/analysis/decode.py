"""What a decoder's step of a pattern reads, launches and keeps, as data and in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from spattn.analysis.liveness import Question, Report, report
from spattn.analysis.samples import sample_tensors
from spattn.attend import Attention
from spattn.cost.decode_tiles import paged, positions_each, splits_for, tiles_at, usual_tile
from spattn.errors import ArgumentError, NotDecodableError
from spattn.machine.device import H200, Device
from spattn.oracle import mask


@dataclass(frozen=True)
class StepOf:
    """A step that is asked about.

    Attributes:
        num_q_heads, num_kv_heads: Heads.
        head_dim: Their width.
        itemsize: Bytes of an element of q; of the cache too.
        batch: Requests.
        kv_len: Keys that each holds.
        new: Rows of each.
        page_size: Keys of a page; None without pages.
    """

    num_q_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128
    itemsize: int = 2
    batch: int = 1
    kv_len: int = 131072
    new: int = 1
    page_size: int | None = None


@dataclass(frozen=True)
class HeadGroup:
    """Heads that one launch serves.

    Attributes:
        heads: How many query heads.
        packed: Query heads of a program, which share keys.
        positions: Of a request, in a tile.
        tile: Rows x keys, and how Triton schedules it.
        tiles: Of keys, that the last row of a request visits.
        keys: That its rows attend.
        splits: Programs that share these tiles, at most.
        programs: Of the launch.
        needed: Bytes of keys and values that rows attend.
    """

    heads: int
    packed: int
    positions: int
    tile: str
    tiles: int
    keys: int
    splits: int
    programs: int
    needed: int


@dataclass(frozen=True)
class DecodeExplanation:
    """A decoder's step; `str()` says it in words.

    Attributes:
        pattern: As it prints.
        step: What was asked about.
        groups: A launch each.
        device: Whose memory the floor is of.
        floor: Microseconds that its memory takes for the bytes that are needed.
        live: What a cache has to hold; None where decode steps cannot compute the pattern.
        refusal: Why not.
        kernels: Why no kernel serves it, and the torch backend gathers the keys instead; None where one does.
    """

    pattern: str
    step: StepOf
    groups: tuple[HeadGroup, ...]
    device: str
    floor: float
    live: Report | None
    refusal: str | None
    kernels: str | None = None

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        live = None if self.live is None else self.live.to_dict()
        return {**asdict(self), "groups": [asdict(one) for one in self.groups], "live": live}


def explain_decode(attn: Attention, step: StepOf, device: Device = H200) -> DecodeExplanation:
    """What a step does.

    Args:
        attn: The compiled pattern.
        step: Its sizes.
        device: Where it would run.

    Raises:
        ArgumentError: E060, sizes do not fit each other.
    """
    if step.num_q_heads % step.num_kv_heads:
        message = f"{step.num_kv_heads} key heads do not divide {step.num_q_heads} query heads"
        raise ArgumentError("E060", message, hint="with GQA num_q_heads is a multiple of num_kv_heads")
    if not 1 <= step.new <= step.kv_len:
        raise ArgumentError("E060", f"{step.new} new rows of {step.kv_len} tokens")
    groups = tuple(_groups(attn, step, device))
    needed = sum(one.needed for one in groups)
    live, refusal = None, None
    question = Question(step.num_q_heads, step.num_kv_heads, None, step.new, 0, step.page_size, step.kv_len)
    try:
        live = report(attn.pattern, question)
    except NotDecodableError as error:
        refusal = error.message
    return DecodeExplanation(
        str(attn.pattern),
        step,
        groups,
        device.name,
        needed / device.bandwidth * 1e6,
        live,
        refusal,
        _unserved(attn, step),
    )


def _groups(attn: Attention, step: StepOf, device: Device) -> Iterator[HeadGroup]:
    size = step.num_q_heads // step.num_kv_heads
    for values, heads in attn.groups(1, step.num_q_heads).items():
        source, layout = attn.decode_source(values), attn.layout_of(values)
        owners = {int(head) // size for head in heads}
        packed = size if source.alike and len(owners) * size == len(heads) else 1
        count = len(owners) if packed > 1 else len(heads)
        positions = positions_each(step.new, packed, rows_alike=source.rows_alike)
        tile = usual_tile(step.head_dim, step.itemsize, packed * positions)
        each = -(-step.new // positions)
        splits = splits_for(layout, step.kv_len, tile, count * each, device)
        keys = _attended(attn, step, int(heads[0]))
        yield HeadGroup(
            heads=len(heads),
            packed=packed,
            positions=positions,
            tile=str(paged(tile) if step.page_size else tile),
            tiles=tiles_at(layout, step.kv_len, tile.block_n),
            keys=keys,
            splits=splits,
            programs=step.batch * each * splits * count,
            needed=2 * keys * step.head_dim * step.itemsize * len(owners) * step.batch,
        )


def _unserved(attn: Attention, step: StepOf) -> str | None:
    """Why no kernel serves a step on a GPU, as a sentence; None if one does, or torch is not there to be asked."""
    if find_spec("torch") is None:
        return None
    from spattn.gpu.decoding import refusal
    from spattn.gpu.step import StepSizes

    dtype = {2: "bfloat16", 4: "float32", 8: "float64"}[step.itemsize]
    heads, widths = (step.num_q_heads, step.num_kv_heads), (step.head_dim, step.head_dim)
    return refusal(attn, StepSizes.named(*heads, *widths, step.batch, step.kv_len, step.new, dtype, "cuda"))


def _attended(attn: Attention, step: StepOf, head: int) -> int:
    """Keys that a head's rows attend; with example tensors where the pattern reads some."""
    pattern = attn.pattern
    tensors = sample_tensors(pattern.condition, pattern.free_names, step.kv_len, q_len=step.new)
    found = mask(pattern.syntax, step.new, step.kv_len, num_heads=step.num_q_heads, tensors=tensors)
    heads = found.reshape(-1, step.new, step.kv_len)
    return int(heads[head if len(heads) > 1 else 0].any(0).sum())


def _lines(found: DecodeExplanation) -> Iterator[str]:
    step = found.step
    yield f"pattern     {found.pattern}"
    rows = f"{_count(step.batch, 'request')} with {_count(step.new, 'row')} each, over {step.kv_len} keys"
    yield f"step        {rows}; {step.num_q_heads} query heads, {step.num_kv_heads} key heads of {step.head_dim}"
    if found.kernels is not None:
        yield f"kernels     none: {found.kernels}; the torch backend gathers the keys"
    else:
        yield f"launches    {len(found.groups)}; nothing is read on the host, so that a CUDA graph serves all lengths"
    for one in () if found.kernels else found.groups:
        packing = f"{one.packed} query heads that share keys" if one.packed > 1 else "one query head"
        positions = "" if one.positions == 1 else f" at {one.positions} positions"
        yield f"heads       {one.heads}: a program has {packing}{positions}; tiles of {one.tile}"
        yield f"  keys      {one.keys} attended, the last row's in {_count(one.tiles, 'tile')}"
        yield f"  programs  {one.programs}; at most {one.splits} share the tiles of a row"
    needed = sum(one.needed for one in found.groups) / 2**20
    yield f"memory      {needed:.1f} MiB of keys and values are needed: {found.floor:.1f} us on {found.device}"
    if found.live is None:
        yield f"cache       none for decoding: {found.refusal}"
    else:
        yield from (line for line in str(found.live).splitlines()[1:] if line)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
