"""How the passes of a layout keep their results: what it takes to launch them besides their own work."""

from __future__ import annotations

from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import TRUE
from spattn.layout.ir import Box, Layout, Pass, Walk
from spattn.relation.bounds import BEGIN, LAST


@frozen
class Epilogue:
    """How a pass keeps its results.

    Attributes:
        final: They are the call's; else the next pass goes on from them.
        resume: It goes on from those of an earlier pass.
        leaky: Some key tile holds a key for one row that another may not see, so a careful launch follows.
    """

    final: bool = True
    resume: bool = False
    leaky: bool = False


ALONE = Epilogue()


def keepings(layout: Layout) -> tuple[Epilogue, ...]:
    """Of each pass."""
    shared = [i for i, one in enumerate(layout.passes) if not one.owns]
    return tuple(
        Epilogue(one.owns or i == shared[-1], not one.owns and i != shared[0], _leaky(one))
        for i, one in enumerate(layout.passes)
    )


def _leaky(one: Pass) -> bool:
    return any(walk.residual != TRUE or walk.interval and _cuts(walk) or _is_cut_box(walk) for walk in one.walks)


def _cuts(walk: Walk) -> bool:
    """Do a row's own keys end before the walk does?"""
    return any((r.lo, r.hi) != (BEGIN, LAST) for r in walk.ranges)


def _is_cut_box(walk: Walk) -> bool:
    return isinstance(walk.keys, Box) and any(axis != TRUE for axis in walk.keys.axes)
