"""A model's own mask as a pattern: mask functions of transformers are read, not run.

transformers composes a mask of functions of its module `masking_utils`, each a few lines. Here stands what each of
them means; one that is not here is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from spattn.errors import UnsupportedError

MODULE = "transformers.masking_utils"
PATTERNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "causal_mask_function": lambda _: "causal",
    "bidirectional_mask_function": lambda _: "full",
    "sliding_window_overlay": lambda own: f"last({own['sliding_window']})",
    "sliding_window_bidirectional_overlay": lambda own: f"local({own['sliding_window']})",
    "chunked_overlay": lambda own: f"chunk({own['chunk_size']})",
}
"""The pattern of a mask function, by the variables that it keeps."""


class OwnMask(NamedTuple):
    """What a mask function says.

    Attributes:
        pattern: Of positions that count from the first token of a row, or of a document.
        documents: `[batch, tokens]`, of packed rows: tokens side by side with one number are a document.
        positions: `[batch, tokens]`, of packed rows: where a token stands in its document.
    """

    pattern: str
    documents: Tensor | None = None
    positions: Tensor | None = None


def read(mask_function: Callable[..., Any]) -> OwnMask:
    """Reads a mask function.

    Raises:
        UnsupportedError: E061, a part of it is not known; it is named.
    """
    tensors: dict[str, Tensor] = {}
    parts = dict.fromkeys(_parts(mask_function, tensors))
    if any(part.startswith("last") for part in parts) and "causal" not in parts:
        raise UnsupportedError("E061", "the model's mask has a window that is not causal, which is not served")
    named = sorted(parts, key=lambda part: part != "causal")
    pattern = " & ".join(part for part in named if part != "full") or "full"
    documents, positions = tensors.get("packed_sequence_mask"), tensors.get("position_ids")
    if (documents is None) != (positions is None):
        raise UnsupportedError("E061", "the model's mask moves positions of tokens without parting documents")
    return OwnMask(pattern, documents, positions)


def _parts(function: Callable[..., Any], tensors: dict[str, Tensor]) -> list[str]:
    """Patterns whose intersection the function is, and into `tensors` those that part documents."""
    name = getattr(function, "__qualname__", type(function).__name__).split(".")[0]
    known = getattr(function, "__module__", None) == MODULE
    own = _variables(function) if known else {}
    if known and name == "and_masks":
        return [part for one in own["mask_functions"] for part in _parts(one, tensors)]
    if known and name == "packed_sequence_mask_function":
        tensors.update(own)
        return []
    if known and name == "remap_positions_for_packed_sequence":
        tensors["position_ids"] = own["position_ids"]
        return _parts(own["mask_function"], tensors)
    if known and name in PATTERNS:
        return [PATTERNS[name](own)]
    raise UnsupportedError(
        "E061", f"the model's mask has a part that is not served, {name}", hint='attn_implementation="eager"'
    )


def _variables(function: Callable[..., Any]) -> dict[str, Any]:
    """Variables that a function has kept of the one that made it, by name."""
    cells = getattr(function, "__closure__", None) or ()
    return {name: cell.cell_contents for name, cell in zip(function.__code__.co_freevars, cells, strict=True)}
