"""Where values stand in YAML."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module


def find(text: str, path: Sequence[str]) -> int:
    """The position of the value at a path, or of the nearest above it that is there."""
    yaml = import_module("yaml")
    node = yaml.compose(text, yaml.SafeLoader)
    for name in path:
        if not isinstance(node, yaml.MappingNode):
            break
        below = [value for key, value in node.value if key.value == name]
        if not below:
            break
        node = below[-1]  # of keys that are written twice the last counts
    return 0 if node is None else int(node.start_mark.index)
