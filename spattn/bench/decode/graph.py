"""A CUDA graph of steps, and how many launches it holds."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch

WARM = 3
KERNEL, COPY, SET = 0, 1, 2
"""Kinds of nodes that are launched, by the numbers of CUDA's driver."""


def captured(calls: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """A graph of what some calls launch, after they have run."""
    side: Any = torch.cuda.Stream
    stream = side()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM):
            calls()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    with torch.cuda.graph(graph):
        calls()
    return graph


def launches(graph: torch.cuda.CUDAGraph) -> int | None:
    """Kernels, copies and fills in a graph; None where the driver does not tell."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        handle, count = ctypes.c_void_p(graph.raw_cuda_graph()), ctypes.c_size_t()
        _call(driver.cuGraphGetNodes, handle, None, ctypes.byref(count))
        nodes = (ctypes.c_void_p * count.value)()
        _call(driver.cuGraphGetNodes, handle, nodes, ctypes.byref(count))
        return sum(_kind(driver, node) in (KERNEL, COPY, SET) for node in nodes)
    except (OSError, AttributeError, RuntimeError):
        return None


def _kind(driver: Any, node: int | None) -> int:
    kind = ctypes.c_int()
    _call(driver.cuGraphNodeGetType, ctypes.c_void_p(node), ctypes.byref(kind))
    return kind.value


def _call(function: Any, *arguments: object) -> None:
    status = function(*arguments)
    if status:
        raise RuntimeError(f"the driver answers {status}")
