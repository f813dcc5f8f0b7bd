"""What a kernel language is to the rest of the compiler. No compiler is imported for it: text is only text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from spattn.codegen.helpers import Helpers
from spattn.codegen.tile import Tile

if TYPE_CHECKING:
    from spattn.layout.ir import Pass


class Language(Protocol):
    """Writes kernels, one a pass, and may refuse a pass by what it walks."""

    @property
    def name(self) -> str:
        """As `backend=` filters name it."""
        ...

    @property
    def helpers(self) -> Helpers:
        """The functions that its kernels call."""
        ...

    @property
    def templates(self) -> str:
        """Its folder among the templates."""
        ...

    def refusal(self, one: Pass, kernel: str) -> str | None:
        """Why it cannot write a kernel of this pass, as a sentence; None if it can.

        Args:
            one: The pass.
            kernel: The name of its kind: "forward", "grad_q" or "grad_kv".
        """
        ...

    def options(self, tile: Tile, *, cuda: bool) -> dict[str, int]:
        """What its compiler is told of a kernel beside the constants; the same for a launch and ahead of time."""
        ...
