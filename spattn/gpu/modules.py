"""The generated modules of a group of heads, a language each, loaded when one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spattn.call.request import CompiledPattern
from spattn.codegen.kernel_specs import KernelSpec
from spattn.codegen.module import KernelSource, ModuleSource
from spattn.codegen.tile import Tile
from spattn.gpu.load import load


@dataclass(frozen=True)
class Modules:
    """The kernels of a group of heads, forward or backward.

    Attributes:
        plans: The compiled pattern.
        values: The group.
        by_residue: Are its rows tiled by residue classes?
        backward: Are these its gradients?
    """

    plans: CompiledPattern
    values: tuple[bool, ...]
    by_residue: bool
    backward: bool = False

    def source(self, language: str) -> ModuleSource:
        """The generated module; it has no kernels of passes that the language refuses."""
        of = self.plans.backward_module_of if self.backward else self.plans.module_of
        return of(self.values, self.by_residue, language)

    def kernels(self, language: str) -> dict[str, Any]:
        """What the module defines."""
        source = self.source(language)
        return load(self.plans.publish(source.text), source.text)

    def passes(self, kind: KernelSpec, tiles: Sequence[Tile]) -> tuple[KernelSource, ...]:
        """The kernel of each pass, in the language of its tile."""
        return tuple(self.source(tile.language).kernel_of(kind, i) for i, tile in enumerate(tiles))
