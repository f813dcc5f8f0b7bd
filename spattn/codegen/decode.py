"""The generated module of a decoder's step: the passes of a layout as one kernel, over a cache of each request."""

from __future__ import annotations

import re

from spattn.codegen.environment import code
from spattn.codegen.helpers import Helpers
from spattn.codegen.kernel_specs import DECODE, DECODE_CONSTANTS
from spattn.codegen.kernel_text import COORDINATES, kernel_text, tensor_texts
from spattn.codegen.languages.language import Language
from spattn.codegen.model import KernelText, LoopText
from spattn.codegen.module import headed, render, standalone
from spattn.codegen.parameters import BlockLists, DocumentBounds, DocumentIds, Parameters, Role
from spattn.codegen.pruning import pruned
from spattn.codegen.signature import Signature, decoding
from spattn.expressions.algebra import symbols
from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import Bool, Int, RandomTable
from spattn.layout.describe import describe
from spattn.layout.ir import Box, Layout
from spattn.relation.lattice import Affine
from spattn.scores.nodes import Score
from spattn.scores.words import variables


@frozen
class DecodeSource:
    """Generated text, and what a launcher must know of it; the same layouts give the same bytes.

    Attributes:
        text: A module that imports the functions which its kernel calls.
        helpers: Where these are.
        roles: The kernel's run-time tensors, in order.
        boxes: Those that its loops walk over.
        signature: Its arguments.
        alike: Does the text treat heads alike? Then one program may have all query heads that share keys.
        widest_step: Between neighbouring keys of a walk, at most.
        rows_alike: May a tile have several positions of a request?
        shares: May a tile have rows of several requests? Not where the text tells them apart.
    """

    text: str
    helpers: Helpers
    roles: tuple[Role, ...]
    boxes: tuple[Box, ...]
    signature: Signature
    alike: bool
    widest_step: int
    rows_alike: bool
    shares: bool

    @property
    def standalone(self) -> str:
        """The text with the functions written out that it imports."""
        return standalone(self.text, self.helpers)


@frozen
class LoopFunctions:
    """A loop as two functions: one that counts its tiles, one that walks them; `names` are what they read."""

    name: str
    title: str
    names: str
    constants: str
    body: str
    count_names: str
    count_constants: str
    count: str


def decode_source(layout: Layout, pattern: str, language: Language, score: Score | None = None) -> DecodeSource:
    """The kernel of a step of `layout`, of direction "queries". `pattern` stands in the head, escaped."""
    parameters = Parameters()
    kernels = [kernel_text(layout, i, DECODE, score=score, parameters=parameters) for i in range(len(layout.passes))]
    tensors = tensor_texts(parameters)
    boxes = [box for kernel in kernels for box in kernel.boxes]
    passes = [
        (kernel, [_loop(kernel, i, one, language.templates) for i, one in enumerate(kernel.loops)])
        for kernel in kernels
    ]
    numbers = ("batch_size", "q_len", "qk_scale")
    signature = decoding(DECODE, parameters.roles, numbers, [box.sides for box in boxes])
    body = render(
        f"{language.templates}/decode.py.jinja",
        passes=passes,
        kind=DECODE,
        side=DECODE.side,
        tensors=tensors,
        signature=signature,
    )
    return DecodeSource(
        text=headed(pruned(body), describe(layout, COORDINATES), layout, pattern, language, score),
        helpers=language.helpers,
        roles=tuple(parameters.roles),
        boxes=tuple(one.box for one in boxes),
        signature=signature,
        alike="h" not in symbols(layout.condition) and not any(map(_of_heads, parameters.roles)),
        widest_step=max((one.step for kernel in kernels for one in kernel.loops), default=1),
        shares=not _tells_requests_apart(layout.condition, parameters.roles, score),
        rows_alike=all(one.rows == Affine(1, Int(0)) and one.block == one.residues == 1 for one in layout.passes),
    )


def _tells_requests_apart(condition: Bool, roles: list[Role], score: Score | None) -> bool:
    """Does the text speak of a request's length, its documents, or which it is?"""
    documents = any(isinstance(role, DocumentIds | DocumentBounds) for role in roles)
    return (
        documents
        or bool(symbols(condition) & {"kv_len", "b", "batch_size"})
        or score is not None
        and "b" in variables(score)
    )


def _of_heads(role: Role) -> bool:
    """Has each head a tensor of its own?"""
    return isinstance(role, BlockLists) and isinstance(role.table, RandomTable)


def _loop(kernel: KernelText, number: int, one: LoopText, templates: str) -> LoopFunctions:
    known = {"one": one, "walk": one.walks[0], "kind": kernel.kind, "side": kernel.side}
    body = render(f"{templates}/_loop.py.jinja", **known).rstrip("\n")
    count = render(f"{templates}/_tile_count.py.jinja", **known).rstrip("\n")
    names, constants = _spoken(kernel, body)
    count_names, count_constants = _spoken(kernel, count)
    local = "    REQUESTS: tl.constexpr = True\n" if "REQUESTS" in count else ""
    return LoopFunctions(
        code(f"{kernel.name}_loop_{number}"),
        one.title,
        names,
        constants,
        code(local + body),
        count_names,
        count_constants,
        code(local + count),
    )


def _spoken(kernel: KernelText, body: str) -> tuple[str, str]:
    """Variables of the kernel, and constants, that a body speaks of, each with a comma."""
    spoken = set(re.findall(r"[a-zA-Z_]\w*", body))
    variables = code(" ".join(f"{name}," for name in kernel.variables if name in spoken))
    constants = code(" ".join(f"{name}," for name in DECODE_CONSTANTS if name in spoken))
    return variables, constants
