"""Who takes part: the peers by the short names that options use, and which of them run where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from spattn.backends.registry import require
from spattn.bench.options import Options
from spattn.bench.peers.dense import DenseCudnn, MaskedDense
from spattn.bench.peers.flash import FlashAttention4
from spattn.bench.peers.flex import TUNED, BlockMasks, FlexAttention
from spattn.bench.peers.ours import Spattn
from spattn.bench.peers.peer import Kind, Peer
from spattn.bench.peers.row_blocks import RowBlocks
from spattn.bench.workloads.catalogue import GROUPS, WORKLOADS
from spattn.bench.workloads.selection import known
from spattn.bench.workloads.workload import Workload

OURS = "spattn"
TUNED_KEY = "flex-tuned"
USUAL = {"cuda": (OURS, "flex", TUNED_KEY, "cudnn", "fa4"), "cpu": (OURS, "masked", "row-blocks")}
BACKENDS = {"cuda": ("triton",), "cpu": ("torch",)}
EVERY = "all"


@dataclass(frozen=True)
class Roster:
    """The peers of a run.

    Attributes:
        peers: By short name, in the order of the table.
        tuned: Names of the workloads for which tuning is tried, or `all`.
        masks: FlexAttention's block masks, which its modes share.
        absent: Who was wanted and is not here, and why.
    """

    peers: dict[str, Peer]
    tuned: frozenset[str]
    masks: BlockMasks
    absent: dict[str, str]

    def of(self, one: Workload) -> list[Peer]:
        """Those that take part in a workload."""
        wanted = bool({one.name, one.base, EVERY} & self.tuned)
        return [peer for key, peer in self.peers.items() if key != TUNED_KEY or wanted]

    @property
    def builders(self) -> dict[str, Peer]:
        """Those that build something: spattn and its rivals, once where modes share what they build."""
        return {key: peer for key, peer in self.peers.items() if peer.kind is not Kind.OTHER and key != TUNED_KEY}


def roster(options: Options, device: torch.device) -> Roster:
    """Who takes part in a run.

    Raises:
        UnsupportedError: E041, a peer, a backend or a workload has no such name.
    """
    masks = BlockMasks()
    keys = listed(options.peer) or USUAL[device.type]
    makers = _makers(masks)
    peers: dict[str, Peer] = {}
    for key in keys:
        if known(key, (OURS, *makers), "peer") == OURS:
            peers |= _ours(listed(options.backend) or BACKENDS[device.type])
        else:
            peers[key] = makers[key]()
    absent = {key: why for key, peer in peers.items() if (why := peer.missing(device)) is not None}
    here = {key: peer for key, peer in peers.items() if key not in absent}
    return Roster(here, _tuned(options), masks, {peers[key].name: why for key, why in absent.items()})


def nobody() -> Roster:
    """Where nothing is compared."""
    return Roster({}, frozenset(), BlockMasks(), {})


def listed(text: str) -> tuple[str, ...]:
    """The names in a text with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _tuned(options: Options) -> frozenset[str]:
    """Who asks for the tuned peer by name wants it everywhere."""
    if TUNED_KEY in listed(options.peer):
        return frozenset({EVERY})
    names = (known(name, (EVERY, *WORKLOADS, *GROUPS), "workload") for name in listed(options.tuned))
    return frozenset(one for name in names for one in ([x.name for x in GROUPS[name]] if name in GROUPS else [name]))


def _makers(masks: BlockMasks) -> dict[str, Callable[[], Peer]]:
    return {
        "flex": lambda: FlexAttention(masks=masks),
        TUNED_KEY: lambda: FlexAttention("FlexAttention tuned", masks=masks, mode=TUNED),
        "cudnn": DenseCudnn,
        "fa4": FlashAttention4,
        "masked": MaskedDense,
        "row-blocks": RowBlocks,
    }


def _ours(backends: Sequence[str]) -> dict[str, Peer]:
    for backend in backends:
        require(backend)
    several = len(backends) > 1
    return {f"{OURS} {one}": Spattn(f"spattn {one}" if several else "spattn", backend=one) for one in backends}
