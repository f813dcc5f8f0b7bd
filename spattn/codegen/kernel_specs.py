"""The kinds of kernels that a pass is compiled to, and what each is launched with besides the pattern's own tensors."""

from __future__ import annotations

from dataclasses import dataclass

from spattn.codegen.environment import code
from spattn.codegen.orientation import ORIENTATIONS, Orientation
from spattn.expressions.algebra import symbols
from spattn.expressions.nodes import Bool

HEADS = ("num_q_heads", "group_size")
NUMBERS = ("q_len", "kv_len", "q_offset", "k_offset", "num_keys", "tiles", "splits", "programs", "qk_scale")
CONSTANTS = (
    "HEAD_DIM", "V_HEAD_DIM", "BLOCK_D", "BLOCK_DV",
    "BLOCK_M", "BLOCK_N", "LISTED_HEADS", "PRECISION",
    "INT64_OFFSETS", "NO_TAIL", "SPLIT_KV", "PEELED", "ALL_KEYS", "REQUESTS",
)  # fmt: skip
ROW_LETTERS = {"k": "n", "v": "n", "dk": "n", "dv": "n"}  # of a stride; "m" for what has queries


def numbers_of(condition: Bool) -> tuple[str, ...]:
    """What kernels of a pattern are told of a launch; how many batch entries there are where it speaks of that."""
    return (*NUMBERS, "batch_size") if "batch_size" in symbols(condition) else NUMBERS


@dataclass(frozen=True)
class Part:
    """A partial result of each row.

    Attributes:
        tag: Ends the names of its pointers.
        width: The constant that is its width; "" for a number a row.
        scaled: Are its rows divided by a scale, so that float16 holds them where q, k and v have 16 bits? Else it has
            float32.
    """

    tag: str
    width: str
    scaled: bool


@dataclass(frozen=True)
class Gradient(Part):
    """A gradient that passes add to.

    Attributes:
        name: Its tensor's.
        dims: The vector of its dimensions.
        block: The constant that `dims` is padded to.
        row: The letter of its rows.
        of_scores: Is it one of scores' operands, and so multiplied by their scale at the end?
    """

    name: str
    dims: str
    block: str
    row: str
    of_scores: bool


@dataclass(frozen=True)
class KernelSpec:
    """Kernels of one kind.

    Attributes:
        name: The template's.
        prefix: Begins the names of kernels.
        direction: Of the layout: "queries" or "keys".
        operands: Tensors [batch, heads, seq, width], with three strides each.
        vectors: float32 tensors [batch, num_q_heads, q_len].
        parts: What one pass leaves to the next, or a split to its tile.
        results: Operands and vectors that hold the result, as splits are combined into it.
        state: What a loop carries from tile to tile.
        given: What else a loop is called with, a line a group.
        verb: What a loop does with the columns.
        weights: The tile of which pairs that are not allowed are made `hidden`.
        guarded: Are its loops skipped where they have no tile? Without that, the way past an empty loop leaves zeros in
            the registers of products that are on their way, and ptxas then lets no two of them run at once.
        fused: May walks share a loop, and a loop peel its partial tiles? Without that each loop has one mask, in all
            its tiles.
    """

    name: str
    prefix: str
    direction: str
    operands: tuple[str, ...]
    vectors: tuple[str, ...]
    parts: tuple[Part, ...]
    results: tuple[str, ...]
    state: str
    given: tuple[str, ...]
    verb: str
    weights: str
    hidden: str
    guarded: bool = False
    fused: bool = True

    @property
    def side(self) -> Orientation:
        """What its rows and columns are."""
        return ORIENTATIONS[self.direction]

    @property
    def scaled(self) -> bool:
        """Is a result multiplied by the scores' scale at the end?"""
        return any(isinstance(part, Gradient) and part.of_scores for part in self.parts)

    @property
    def tensors(self) -> tuple[str, ...]:
        """What a call brings, in order; the list of heads and run-time tensors follow."""
        return (*self.operands, *self.vectors)


FORWARD = KernelSpec(
    name=code("forward"),
    prefix="attend",
    direction="queries",
    operands=("q", "k", "v", "out"),
    vectors=("lse",),
    parts=(Part("", "V_HEAD_DIM", True), Part("_lse", "", False), Part("_scale", "", False)),
    results=("out", "lse"),
    state=code("acc, m_i, l_i"),
    given=(code("q, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits"),),
    verb=code("Attends to"),
    weights=code("scores"),
    hidden=code('float("-inf")'),
)
GRAD_Q = KernelSpec(
    name=code("grad_q"),
    prefix="grad_q",
    direction="queries",
    operands=("q", "k", "v", "do", "out", "dlse", "dq"),
    vectors=("lse", "row_stats"),
    parts=(Gradient(code(""), code("HEAD_DIM"), False, code("dq"), code("dims"), code("BLOCK_D"), code("m"), True),),
    results=("dq",),
    state=code("dq"),
    given=(code("q, do, lse2, delta, k_head, stride_kn, v_head, stride_vn, dims, v_dims, qk_scale, split, splits"),),
    verb=code("Adds to dq what comes of"),
    weights=code("p"),
    hidden=code("0.0"),
)
GRAD_KV = KernelSpec(
    name=code("grad_kv"),
    prefix="grad_kv",
    direction="keys",
    operands=("q", "k", "v", "do", "dk", "dv"),
    vectors=("row_stats",),
    parts=(
        Gradient(code("_k"), code("HEAD_DIM"), False, code("dk"), code("dims"), code("BLOCK_D"), code("n"), True),
        Gradient(code("_v"), code("V_HEAD_DIM"), False, code("dv"), code("v_dims"), code("BLOCK_DV"), code("n"), False),
    ),
    results=("dk", "dv"),
    state=code("dk, dv"),
    given=(
        code("k, v, q_head, stride_qm, do_head, stride_dom, row_stats_ptr, first_query"),
        code("dims, v_dims, qk_scale, split, splits"),
    ),
    verb=code("Adds to dk and dv what comes of"),
    weights=code("p"),
    hidden=code("0.0"),
    guarded=True,
)
DECODE_CONSTANTS = (
    "HEAD_DIM", "V_HEAD_DIM", "BLOCK_D", "BLOCK_DV", "BLOCK_M", "BLOCK_N",
    "POSITIONS", "SPLITS", "BATCH", "GROUP", "PAGE_SIZE", "KEPT", "IN_ORDER", "RAGGED", "LISTED_HEADS", "HAS_SINKS",
    "HAS_LSE", "HAS_SCALES", "SHARED", "HAS_SHARED", "PRECISION",
)  # fmt: skip
DECODE = KernelSpec(
    name=code("decode"),
    prefix="decode",
    direction="queries",
    operands=("q", "k", "v", "out"),
    vectors=("lse",),
    parts=(),
    results=("out", "lse"),
    state=code("acc, m_i, l_i, done"),
    given=(
        code(
            "q, k_head, stride_kb, stride_kn, v_head, stride_vb, stride_vn, table_ptr, kept_ptr, ring_slots, ring_base"
        ),
        code("blocks, dims, v_dims, qk_scale, split, tiles_each"),
    ),
    verb=code("Attends to"),
    weights=code("scores"),
    hidden=code('float("-inf")'),
    fused=False,
)
"""One step of many requests, each with a cache of its own: all passes in one kernel, a program for a share of keys."""
