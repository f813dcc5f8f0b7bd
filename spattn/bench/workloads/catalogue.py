"""The workloads, as data, and the groups that they are asked for by."""

from __future__ import annotations

from spattn.bench.workloads import masks, tensors
from spattn.bench.workloads.workload import EVERY_KEY, Workload

PEERS = (
    Workload(
        "example_16k_d64",
        "local(128) | global([0, cls]) | random(3)",
        masks.example,
        16384,
        bindings=lambda length: {"cls": 7},
        by_head=True,
    ),
    Workload("sw1024_16k_d128", "last(1024)", masks.last(1024), 16384, 128, causal=True, window=1024),
    Workload("sw4096_64k_d128_gqa4", "last(4096)", masks.last(4096), 65536, 128, 32, 8, causal=True, window=4096),
    Workload(
        "docs_64k_d128",
        "documents(ids) & causal",
        masks.documents,
        65536,
        128,
        tensors=tensors.documents,
        causal=True,
    ),
    Workload("blockrand10_32k_d128", "blocks(t, size=128)", masks.blocks(128), 32768, 128, tensors=tensors.table),
    Workload("dense_causal_8k_d128", "causal", masks.causal, 8192, 128, batch=2, causal=True, window=EVERY_KEY),
    Workload("dense_causal_16k_d64", "causal", masks.causal, 16384, 64, 32, 32, causal=True, window=EVERY_KEY),
    Workload("bigbird_16k_d64", "local(128) | global([0:64]) | random(3)", masks.bigbird, 16384, by_head=True),
    Workload("dilated512x4_32k_d128", "last(512, dilation=4)", masks.last(512, 4), 32768, 128, causal=True),
    Workload(
        "strided128_16k_d64", "last(128) | strided(128) & causal", masks.near_and_strided(128), 16384, causal=True
    ),
    Workload(
        "na2d_128x128_r6_d64",
        "neighborhood(grid=[height, width], kernel=[13, 13], border=cut)",
        masks.neighbours_cut(6),
        16384,
        bindings=tensors.grid,
    ),
    Workload(
        "headers_local256_64k_d128",
        "(last(256) | columns([::512])) & causal",
        masks.headers(256, 512),
        65536,
        128,
        causal=True,
    ),
)

UNIONS = (
    Workload(
        "window_stride_sink_32k_d128",
        "last(1024) | strided(128) & causal | sink(4)",
        masks.window_stride_sink,
        32768,
        128,
    ),
    Workload(
        "na2d_global_16k_d64",
        "neighborhood(grid=[height, width], kernel=[13, 13]) | global([0])",
        masks.neighbours_and_first,
        16384,
        bindings=tensors.grid,
    ),
    Workload(
        "heads_local_strided_16k_d64",
        "heads([0:8]) & local(128) | heads([8:]) & strided(64) & causal",
        masks.two_kinds_of_heads,
        16384,
        by_head=True,
    ),
    Workload(
        "docs_window_columns_64k_d128",
        "documents(ids) & causal & (last(512) | columns([::64]))",
        masks.documents_window_columns,
        65536,
        128,
        tensors=tensors.documents,
        causal=True,
    ),
    Workload(
        "within_window_sink_64k_d128",
        "within(ids, last(512) | sink(4))",
        masks.within_window_sink,
        65536,
        128,
        tensors=tensors.documents,
    ),
    Workload("odd_columns_16k_d128", "causal - columns([::2])", masks.odd_columns, 16384, 128, causal=True),
)

WORKLOADS = {one.name: one for one in (*PEERS, *UNIONS)}

FEW = ("sw1024_16k_d128", "example_16k_d64")
"""Of which building and starting are timed."""
VARIED = (
    "sw1024_16k_d128",
    "strided128_16k_d64",
    "headers_local256_64k_d128",
    "dense_causal_16k_d64",
    "dilated512x4_32k_d128",
    "docs_64k_d128",
    "bigbird_16k_d64",
)
VARIANTS = tuple(WORKLOADS[name].at(length) for name in VARIED for length in (4096, 16384, 65536, 262144))

GROUPS = {"peers": PEERS, "unions": UNIONS, "variants": VARIANTS}
