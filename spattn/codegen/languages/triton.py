"""Portable Triton: it writes every pass, for NVIDIA and AMD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spattn.codegen.helpers import Helpers
from spattn.codegen.tile import Tile

if TYPE_CHECKING:
    from spattn.codegen.languages.language import Language
    from spattn.layout.ir import Pass


class Triton:
    """The language; see `Language`."""

    name = "triton"
    templates = "triton"
    helpers = Helpers("spattn.kernels.triton")

    def refusal(self, one: Pass, kernel: str) -> str | None:
        """None: each index map has its loop."""
        return None

    def options(self, tile: Tile, *, cuda: bool) -> dict[str, int]:
        """Warps, stages, registers.

        A product and the sum that it goes into are one operation, rounded once: that is a part of the numbers, so it is
        said, and no version's default.
        """
        options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": True}
        return {**options, "maxnreg": tile.registers} if tile.registers and cuda else options


TRITON: Language = Triton()
