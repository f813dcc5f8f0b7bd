"""What a call says of positions: numbers on one side, tensors on the other; keys outside of the whole are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from spattn.call.positions import (
    BY_REQUEST,
    LENGTHS,
    OFFSETS,
    Numbers,
    Placement,
    check_missing_keys,
    of_the_whole,
)
from spattn.errors import ArgumentError
from spattn.runtime.numbers import as_position
from spattn.runtime.tensors import require_tensor

NUMBERS = *OFFSETS, "max_seqlen_q", "max_seqlen_k"
Tensors = dict[str, torch.Tensor]


def read_placement(placement: Placement) -> tuple[Numbers, Tensors]:
    """The numbers of a call and its tensors by name; those that are offsets have one dimension.

    Raises:
        ArgumentError: E060, one is neither, or they do not go together.
    """
    by_request: Tensors = {}
    for name in BY_REQUEST:
        value = getattr(placement, name)
        if isinstance(value, torch.Tensor):
            _require_integers(name, value)
            by_request[name] = value.reshape(-1) if name in OFFSETS else value
        elif name in LENGTHS and value is not None:
            raise ArgumentError("E060", f"{name} is a {type(value).__name__}, not a tensor of integers")
    _go_together(by_request, placement)
    said = (name for name in NUMBERS if name not in by_request)
    numbers = {name: _number(name, getattr(placement, name)) for name in said}
    return Numbers(**numbers, missing_keys=placement.missing_keys), by_request


def _number(name: str, value: Any) -> int | None:
    return value if value is None or type(value) is int else as_position(name, value)


def _go_together(by_request: Mapping[str, torch.Tensor], placement: Placement) -> None:
    packed = [name for name in ("cu_seqlens_q", "cu_seqlens_k") if name in by_request]
    if len(packed) == 1:
        other = "cu_seqlens_k" if packed == ["cu_seqlens_q"] else "cu_seqlens_q"
        raise ArgumentError("E060", f"{packed[0]} is given without {other}", hint="packed are q, k and v, or none")
    padded = [name for name in ("q_lens", "kv_lens") if name in by_request]
    if packed and padded:
        raise ArgumentError("E060", f"{padded[0]} is given for packed rows, whose lengths cu_seqlens_q says")
    for name in ("max_seqlen_q", "max_seqlen_k"):
        if getattr(placement, name) is not None and not packed:
            raise ArgumentError("E060", f"{name} is given, and the rows are not packed", hint="cu_seqlens_q packs them")
    check_missing_keys(placement.missing_keys)


def as_batch(name: str, x: Any) -> torch.Tensor:
    """Packed rows `[tokens, heads, dim]` as a batch of one, `[1, heads, tokens, dim]`.

    Raises:
        ArgumentError: E060, it has other dimensions.
    """
    require_tensor(name, x)
    if x.dim() != 3:
        raise ArgumentError(
            "E060", f"{name} has shape {list(x.shape)}, not [tokens, heads, head_dim] as packed rows do"
        )
    packed: torch.Tensor = x.transpose(0, 1).unsqueeze(0)
    return packed


def only_of_the_whole(
    k: torch.Tensor, v: torch.Tensor, numbers: Numbers, q_len: int, by_request: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, Numbers]:
    """k and v without the keys that stand before 0 or past the end of the whole, where numbers alone say which.

    So no row attends them, whatever the pattern; where a tensor says which, the backend leaves them out.
    """
    if by_request.keys() - {"q_offset", "q_lens"}:
        return k, v, numbers
    if not (isinstance(k, torch.Tensor) and isinstance(v, torch.Tensor) and k.dim() == v.dim() == 4):
        return k, v, numbers  # which the checks refuse
    count = k.shape[2]
    numbers, begin, end = of_the_whole(numbers, count)
    if numbers.q_offset is None and not by_request:
        assert numbers.kv_len is not None
        numbers = numbers._replace(q_offset=numbers.kv_len - q_len)
    if begin or end < count:
        k, v = (x[:, :, begin:end] for x in (k, v))
    return k, v, numbers


def check_positions(
    numbers: Numbers, by_request: Mapping[str, Any], q: torch.Tensor, k: torch.Tensor, batch_size: int, *, on_gpu: bool
) -> None:
    """Refuses tensors of positions that are not what is read, and values on a CPU, with `on_gpu` on a GPU too.

    Raises:
        ArgumentError: E060.
    """
    for name, one in by_request.items():
        require_tensor(name, one)
        _require_integers(name, one)
        if one.device != q.device:
            raise ArgumentError("E060", f"{name} is on {one.device} and q on {q.device}")
        sizes = (batch_size, 1) if name in OFFSETS else (batch_size + 1,) if name.startswith("cu_") else (batch_size,)
        if one.dim() != 1 or one.shape[0] not in sizes:
            wanted = "one number a request" if len(sizes) == 1 else "one number, or one a request"
            found = f"{name} has shape {list(one.shape)}"
            raise ArgumentError("E060", f"{found}; it is {wanted}, [{sizes[0]}]")
        if type(one) is torch.Tensor and not one.is_meta and (one.device.type == "cpu" or on_gpu):
            _values_fit(name, one, q.shape[2] if "q" in name.split("_") else k.shape[2], numbers)


def _require_integers(name: str, one: torch.Tensor) -> None:
    if one.is_floating_point() or one.is_complex() or one.dtype == torch.bool:
        raise ArgumentError("E060", f"{name} is {one.dtype}; positions and lengths are integers")


def _values_fit(name: str, one: torch.Tensor, length: int, numbers: Numbers) -> None:
    values = one.tolist()
    if name in OFFSETS:
        if name == "kv_len" and min(values, default=0) < 0:
            raise ArgumentError("E060", f"kv_len holds {min(values)}; a length is 0 or more")
        return
    if name in ("q_lens", "kv_lens"):
        if values and not 0 <= min(values) <= max(values) <= length:
            raise ArgumentError("E060", f"{name} holds {values}; these are lengths from 0 to {length}")
        return
    counts = [stop - begin for begin, stop in zip(values, values[1:], strict=False)]
    if not 0 <= values[0] <= values[-1] <= length or min(counts, default=0) < 0:
        raise ArgumentError("E060", f"{name} holds {values}; these ascend from 0 to {length} tokens at most")
    most = numbers.max_seqlen_q if name == "cu_seqlens_q" else numbers.max_seqlen_k
    if most is not None and max(counts, default=0) > most:
        raise ArgumentError("E060", f"{name} has a request of {max(counts)} tokens, and max_seqlen says {most}")
