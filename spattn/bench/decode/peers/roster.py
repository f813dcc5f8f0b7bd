"""Who takes part in decode workloads, by the short names that options use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from spattn.backends.registry import require
from spattn.bench.decode.peers.flash import FlashDecode
from spattn.bench.decode.peers.flex import FlexDecode
from spattn.bench.decode.peers.infer import FlashInfer
from spattn.bench.decode.peers.ours import SpattnDecoder
from spattn.bench.decode.peers.peer import DecodePeer
from spattn.bench.decode.peers.sdpa import AllKeys, PackedKeys
from spattn.bench.options import Options
from spattn.bench.peers.roster import BACKENDS, OURS, listed
from spattn.bench.workloads.selection import known

MAKERS: dict[str, Callable[[], DecodePeer]] = {
    "flex": FlexDecode,
    "flashinfer": FlashInfer,
    "fa4": FlashDecode,
    "cudnn": AllKeys,
    "packed": PackedKeys,
    "masked": lambda: AllKeys("masked SDPA", masked=True),
}
USUAL = {"cuda": (OURS, "flex", "flashinfer", "fa4", "cudnn", "packed"), "cpu": (OURS, "masked", "packed")}


@dataclass(frozen=True)
class DecodeRoster:
    """The peers of a run.

    Attributes:
        peers: In the order of the table.
        absent: Who was wanted and is not here, and why.
    """

    peers: tuple[DecodePeer, ...]
    absent: dict[str, str]


def decode_roster(options: Options, device: torch.device) -> DecodeRoster:
    """Who takes part.

    Raises:
        UnsupportedError: E041, a peer or a backend has no such name.
    """
    wanted: list[DecodePeer] = []
    for key in listed(options.peer) or USUAL[device.type]:
        if known(key, (OURS, *MAKERS), "peer of decode") == OURS:
            wanted += _ours(listed(options.backend) or BACKENDS[device.type])
        else:
            wanted.append(MAKERS[key]())
    absent = {peer.name: why for peer in wanted if (why := peer.missing(device)) is not None}
    return DecodeRoster(tuple(peer for peer in wanted if peer.name not in absent), absent)


def _ours(backends: tuple[str, ...]) -> list[DecodePeer]:
    for backend in backends:
        require(backend)
    several = len(backends) > 1
    return [SpattnDecoder(f"spattn {one}" if several else "spattn", backend=one) for one in backends]
