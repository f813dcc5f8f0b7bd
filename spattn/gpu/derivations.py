"""How lists and ends are derived from tensors on a GPU: which kernels, for tensors of given shapes.

Each is settled once for shapes, strides and dtypes; to derive is to launch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch

from spattn.call.positions import BY_REQUEST, Positions
from spattn.codegen.tile import Tile
from spattn.errors import UnsupportedError
from spattn.gpu.kernel_launch import Kernel, KernelLaunch
from spattn.gpu.launches import Launches
from spattn.gpu.output_allocator import OutputAllocator
from spattn.gpu.workspace import Workspace
from spattn.versions import cure, numbers

MAX_KNOWN = 1024
BLOCK = 1024  # positions of a program
REQUESTS = 128  # of a program
COMPARED = 64  # tokens of a program, each compared with all others
_known: OrderedDict[Any, Derivation] = OrderedDict()


@dataclass(frozen=True)
class Derivation:
    """Launches that fill a new tensor, on tensors of one kind.

    Attributes:
        launches: Their tensors are the sources, then the result.
        allocator: Makes the result.
        zeroed: Is it 0 before?
    """

    launches: Launches
    allocator: OutputAllocator
    zeroed: bool = False

    def told(self, place: int, number: int) -> Derivation:
        """The same with another number among the first launch's, after its tensors."""
        first, *rest = self.launches.each
        arguments = first.arguments.copy()
        arguments[len(first.kernel.pointers) + place] = number
        launches = Launches([first._replace(arguments=arguments), *rest], self.launches.workspace)
        return Derivation(launches, self.allocator, self.zeroed)

    def __call__(self, *sources: torch.Tensor) -> torch.Tensor:
        """The tensor, derived on the current stream."""
        made = self.allocator()
        if self.zeroed:
            made.zero_()
        if made.numel():
            self.launches.run([*sources, made])
        return made


def block_lists(
    table: torch.Tensor, rows: tuple[int, int], columns: tuple[int, int], *, transposed: bool
) -> Derivation:
    """int32 [.., rows, 1 + width]: how many columns a row marks, then these, ascending; what follows is not written.

    Args:
        table: `[.., query blocks, key blocks]`; rows outside of it mark none.
        rows: Which are asked for, half-open.
        columns: Those that count, half-open.
        transposed: Are the key blocks the rows?
    """

    def made() -> Derivation:
        *outer, height, width = table.shape
        along, across = table.stride()[-2:]
        if transposed:
            height, width, along, across = width, height, across, along
        strides = [0] * (2 - len(outer)) + [0 if table.shape[i] == 1 else table.stride(i) for i in range(len(outer))]
        heads, batch = (*reversed(outer), 1, 1)[:2]
        count = rows[1] - rows[0]
        numbers = (heads, height, width, rows[0], count, *columns, *strides, along, across)
        block = _block(width)
        grid = (count * batch * heads, 1, 1)
        launch = _step(
            _kernels().list_blocks, grid, (0, 1), numbers, (block,), (*strides, along, across), _warps(block)
        )
        return _derivation(table, [launch], (*outer, count, 1 + width))

    return _settled(("blocks", rows, columns, transposed), (table,), made)


def token_list(tokens: torch.Tensor, length: int, requests: torch.Tensor | None = None) -> Derivation:
    """int32 [.., n]: positions ascending, repeated and outside ones moved to the end as NOWHERE.

    Args:
        tokens: `[.., n]`, negative ones count from the end.
        length: Of the sequence, of the longest where requests have sequences of their own.
        requests: Their table; the sources are then the tokens and it.
    """

    def made() -> Derivation:
        batch, count, strides = _sequence(tokens)
        workspace, kernels = Workspace(), _kernels()
        result = len(sources)
        places = result + 1 + workspace.add(batch * count, torch.int32)
        grid, numbers = (-(-count // COMPARED), batch, 1), (count, 0, *strides)
        constants = requests is not None, COMPARED
        steps = [
            _step(kernels.place_tokens, grid, (0, result - 1, places), numbers, constants, strides),
            _step(kernels.sort_places, grid, (places, result), (count,), (COMPARED,), ()),
        ]
        return Derivation(Launches(steps, workspace), OutputAllocator(tokens.shape, torch.int32, tokens.device))

    sources = (tokens,) if requests is None else (tokens, requests)
    return _settled(("tokens", length), sources, lambda: _settled(("tokens",), sources, made).told(1, length))


def membership(tokens: torch.Tensor, length: int, requests: torch.Tensor | None = None) -> Derivation:
    """int8 [.., length]: is the position one of the tokens? Arguments as of `token_list`."""

    def made() -> Derivation:
        batch, count, strides = _sequence(tokens)
        grid, numbers = (-(-count // BLOCK), batch, 1), (count, length, *strides)
        result, constants = len(sources), (requests is not None, BLOCK)
        launch = _step(_kernels().mark_tokens, grid, (0, result - 1, result), numbers, constants, strides)
        allocator = OutputAllocator((*tokens.shape[:-1], length), torch.int8, tokens.device)
        return Derivation(Launches([launch] if count else []), allocator, zeroed=True)

    sources = (tokens,) if requests is None else (tokens, requests)
    return _settled(("membership", length), sources, made)


def requests(at: Positions, given: Mapping[str, torch.Tensor], count: int) -> Derivation:
    """int32 [requests, 8]: where each stands and lies, as `requests.request_table` says.

    Args:
        at: What the call says, in numbers too.
        given: The tensors of `at.by_request`: `[1]` or `[requests]`, ends `[requests + 1]`.
        count: Of requests.
    """

    def made() -> Derivation:
        said = {"q_offset": at.said.q_offset, "k_offset": at.said.k_offset or 0, "kv_len": at.said.kv_len}
        places = {name: i for i, name in enumerate(at.by_request)}
        result = len(places)
        tensors = [places.get(name, result) for name in BY_REQUEST]
        strides = [given[n].stride(0) * (given[n].shape[0] > 1) if n in given else 0 for n in BY_REQUEST]
        known = tuple(2 if name in given else 1 if said.get(name) is not None else 0 for name in BY_REQUEST)
        numbers = (count, *at.lie_in, at.q_len, at.num_keys, *(x or 0 for x in said.values()), *strides)
        grid, constants = (-(-count // REQUESTS), 1, 1), (*known, REQUESTS)
        launch = _step(_kernels().place_requests, grid, (*tensors, result), numbers, constants, tuple(strides))
        return _derivation(next(iter(given.values())), [launch], (count, 8))

    return _settled(("requests", at, count), tuple(given.values()), made)


def segment_numbers(starts: torch.Tensor, length: int, outside: int) -> Derivation:
    """int32 [length]: the segment that holds each position, `outside` where none does.

    Args:
        starts: `[segments + 1]`, ascending.
        length: Of the sequence.
        outside: Less than 0.
    """

    def made() -> Derivation:
        alike = (outside, starts.stride(0))
        numbers = (length, starts.shape[0] - 1, *alike)
        launch = _step(_kernels().number_segments, (-(-length // BLOCK), 1, 1), (0, 1), numbers, (BLOCK,), alike)
        return _derivation(starts, [launch], (length,))

    return _settled(("segments", length, outside), (starts,), made)


def segment_ends(seen: torch.Tensor, starts: torch.Tensor, length: int) -> Derivation:
    """int32 [4, .., n]: where the segment of each number starts and stops, and twice the same again: it is one run.

    Args:
        seen: `[.., n]`, numbers of segments; for those below 0 all is 0.
        starts: `[segments + 1]`, ascending.
        length: Of the sequence that is cut into segments.
    """

    def made() -> Derivation:
        batch, count, strides = _sequence(seen)
        alike = (*strides, starts.stride(0))
        numbers = (count, length, starts.shape[0] - 1, *alike, batch * count)
        launch = _step(_kernels().find_segments, (-(-count // BLOCK), batch, 1), (0, 1, 2), numbers, (BLOCK,), alike)
        return _derivation(seen, [launch], (4, *seen.shape))

    return _settled(("segment ends", length), (seen, starts), made)


def document_ends(seen: torch.Tensor, ids: torch.Tensor, *, placed: bool = False) -> Derivation:
    """int32 [4, .., n]: first place of each id, the one after the last; the same if they are neighbours, else 0 and 0.

    An id that is nowhere has 0 and 0.

    Args:
        seen: `[.., n]`, the ids that are asked for.
        ids: `[.., m]`, where they are looked for.
        placed: Is an id below 0 no document?
    """
    _require_swap()

    def made() -> Derivation:
        seen_batch, count, seen_strides = _sequence(seen)
        ids_batch, length, strides = _sequence(ids)
        batch, slots = max(seen_batch, ids_batch), max(2 << (max(length, 1) - 1).bit_length(), BLOCK)
        workspace, kernels = Workspace(), _kernels()
        # one after the other, so that one launch clears all
        table = [3 + workspace.add(batch * slots, torch.int32) for _ in range(4)]
        size = len(table) * batch * slots
        entered, found = ((-(-n // BLOCK), batch, 1) for n in (length, count))
        alike = (*seen_strides, *strides)
        numbers = (count, length, *alike, batch * count)
        steps = [
            _step(kernels.clear, (-(-size // BLOCK), 1, 1), table[:1], (size, -1), (BLOCK,), ()),
            _step(kernels.enter_documents, entered, (1, *table), (length, *strides), (slots, BLOCK), strides),
            _step(kernels.find_documents, found, (0, 1, *table, 2), numbers, (slots, placed, BLOCK), alike),
        ]
        outer = (batch,) if max(seen.dim(), ids.dim()) > 1 else ()
        return Derivation(Launches(steps, workspace), OutputAllocator((4, *outer, count), torch.int32, seen.device))

    return _settled(("document ends", placed), (seen, ids), made)


@lru_cache(maxsize=1)
def _require_swap() -> None:
    """Documents share a hash table by compare-and-swap, which Triton 3.6 compiles for no AMD GPU."""
    import triton

    if torch.version.hip is not None and numbers(triton.__version__) < (3, 7):
        what = (
            f"Triton {triton.__version__} compiles no compare-and-swap for AMD GPUs, which finds documents by their ids"
        )
        raise UnsupportedError("E061", what, hint=f"{cure('triton')}, or cumulative lengths, segments(cu)")


def _sequence(tensor: torch.Tensor) -> tuple[int, int, tuple[int, int]]:
    """Of `[n]` or `[batch, n]`: batch, n, and their strides; 0 where one entry serves all."""
    if tensor.dim() == 1:
        return 1, tensor.shape[0], (0, tensor.stride(0))
    batch, count = tensor.shape
    return batch, count, (0 if batch == 1 else tensor.stride(0), tensor.stride(1))


def _settled(what: tuple[Any, ...], sources: Sequence[torch.Tensor], make: Callable[[], Derivation]) -> Derivation:
    """The derivation of tensors of this kind, made once."""
    kinds = ((x.shape, x.stride(), x.dtype, x.device, x.data_ptr() % 16) for x in sources)
    key = what, *kinds
    known = _known.get(key)
    if known is None:
        if len(_known) >= MAX_KNOWN:
            _known.popitem(last=False)
        known = _known[key] = make()
    return known


def _derivation(source: torch.Tensor, steps: list[KernelLaunch], shape: Sequence[int]) -> Derivation:
    return Derivation(Launches(steps), OutputAllocator(shape, torch.int32, source.device))


def _step(
    kernel: Any,
    grid: tuple[int, int, int],
    tensors: Sequence[int],
    numbers: Sequence[int],
    constants: tuple[int, ...],
    alike: tuple[int, ...],
    warps: int = 4,
) -> KernelLaunch:
    """A launch on tensors of these places, with numbers and constants; those `alike` are compiled in."""
    arguments = [*(0 for _ in tensors), *numbers, *constants]
    made = Kernel(kernel, arguments, tuple(enumerate(tensors)), (), constants, Tile(0, 0, warps, 1), alike)
    return made.launch(grid, {})


def _block(width: int) -> int:
    return min(max(1 << (width - 1).bit_length(), 32), BLOCK)


def _warps(block: int) -> int:
    return max(1, min(block // 128, 4))


@lru_cache(maxsize=1)
def _kernels() -> ModuleType:
    """Imported when there is something to derive: Triton need not be installed."""
    from spattn.gpu import derivation_kernels

    return derivation_kernels
