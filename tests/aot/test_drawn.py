"""Triton's front end takes the kernels of a sample of the language: types agree where branches and loops meet.

The interpreter asks nothing of the kind.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import triton
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from triton._C.libtriton import ir
from triton.compiler import make_backend

from spattn.cache.store import default_cache
from spattn.codegen.signature import Argument
from spattn.codegen.tile import Tile
from spattn.compiler import compile_pattern
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Node
from spattn.gpu import aot
from spattn.gpu.load import load
from spattn.machine.target import Target
from spattn.relation.heads import pair_groups
from tests.strategies import patterns

pytestmark = [pytest.mark.aot, pytest.mark.timeout(1800)]

EXAMPLES = 300 if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else 4  # of each kind of launch
WITHOUT_SHRINKING = (Phase.explicit, Phase.generate)
GPU, TILE = Target.of("cuda:90"), Tile(64, 32, 4, 2)
LAUNCHES = {
    "split": ("bf16", replace(TILE, splits=3), False),
    "peeled": ("bf16", replace(TILE, peeled=True), False),
    "repair": ("fp32", TILE, True),
}
# the ends of one walk are those of all rows, of the next each row's own
MIXED_ENDS = "~packed_causal(ids) - (within(ids, prefix(6)) | prefix(1))"
# what a kernel is told as a constant, and what it is told at each launch
SIZES = "where(q < num_heads * 4 or k % 3 == min(num_heads, 2) // 2) & where((num_heads + batch_size) % 3 < k - q)"


def front_end(source: Any, target: Any, options: dict[str, int]) -> SimpleNamespace:
    """The first step of `triton.compile`: a typed program; the others would take ten times as long."""
    backend = make_backend(target)
    parsed, context = backend.parse_options(options), ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    source.make_ir(target, parsed, backend.get_codegen_implementation(parsed), backend.get_module_map(), context)
    return SimpleNamespace(asm={}, metadata=SimpleNamespace(shared=0))


def with_wide_tensors(usual: Any) -> Any:
    """Types of a call whose tensors have int64."""

    def typed(one: Argument, dtype: str) -> str:
        return "*i64" if re.fullmatch(r"t\d+_ptr", one.name) and one.element == "given" else usual(one, dtype)

    return typed


@pytest.mark.parametrize("launch", LAUNCHES)
def test_types_agree(launch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype, tile, repair = LAUNCHES[launch]
    monkeypatch.setattr(triton, "compile", front_end)
    if repair:
        monkeypatch.setattr(aot, "_type", with_wide_tensors(aot._type))

    @seed(list(LAUNCHES).index(launch))  # other patterns for each
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=WITHOUT_SHRINKING)
    @given(patterns(depth=2))
    @example(parse(MIXED_ENDS))
    @example(parse(SIZES))
    def sample(node: Node) -> None:
        one = compile_pattern(node)
        for values in pair_groups(one.pair_conditions, 2, 4):
            for source in (one.source(values), one.backward_source(values)):
                kernels = load(default_cache().publish(source.text), source.text)
                aot.compile_ahead(source, kernels, GPU, dtype, 64, 64, tile, repair)

    sample()
