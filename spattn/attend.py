"""`compile` and `attention`: a pattern as a function of q, k, v."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from spattn.backends.registry import require
from spattn.cache.store import Cache, default_cache
from spattn.call.positions import MissingKeys, Placement, Positions
from spattn.codegen.decode import DecodeSource
from spattn.codegen.module import ModuleSource
from spattn.compiler import Compiled, compile_pattern
from spattn.errors import BindError, MissingDependencyError
from spattn.expressions.algebra import symbols
from spattn.frontend.reserved import KEYWORDS, refuse_dropout
from spattn.layout.ir import Layout
from spattn.pattern import Pattern
from spattn.relation.heads import pair_groups
from spattn.relation.missing import missing_key
from spattn.runtime.options import Plan
from spattn.scores.parser import names_of
from spattn.scores.parser import parse as parse_score
from spattn.scores.words import reads

if TYPE_CHECKING:
    import torch

    from spattn.analysis.explanation import Explanation
    from spattn.call.prepared import Prepared
    from spattn.runtime.execution import Calls
    from spattn.serving import Decoder

MAX_KNOWN = 256
_KNOWN: dict[str, Attention] = {}


class Attention:
    """Exact attention over the pairs of a pattern; made by `spattn.compile`.

    Attributes:
        pattern: What it computes.
        score: The canonical text of its score; None for scale * (q . k) itself.
        backend: "auto", "triton" or "torch".
        tune: Are tiles measured, at the first call of each kind?
        tf32: May float32 products use TF32?
    """

    def __init__(self, pattern: Pattern, compiled: Compiled, plan: Plan) -> None:
        self.pattern = pattern
        self.score = plan.score or None
        self.backend = plan.backend
        self.tune = plan.tune
        self.tf32 = plan.tf32
        self._compiled, self._plan = compiled, plan
        # here if torch is, since a compiler that traces the first call would guard what that call makes
        self._calls: Calls | None = self.calls() if sys.modules.get("torch") else None

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        return_lse: bool = False,
        scale: float | torch.Tensor | None = None,
        sinks: torch.Tensor | None = None,
        q_offset: int | torch.Tensor | None = None,
        k_offset: int | torch.Tensor | None = None,
        kv_len: int | torch.Tensor | None = None,
        missing_keys: MissingKeys = "refuse",
        q_lens: torch.Tensor | None = None,
        kv_lens: torch.Tensor | None = None,
        cu_seqlens_q: torch.Tensor | None = None,
        cu_seqlens_k: torch.Tensor | None = None,
        max_seqlen_q: int | None = None,
        max_seqlen_k: int | None = None,
        prepared: Prepared | None = None,
        **tensors: Any,
    ) -> Any:
        """softmax(scale * q k^T) v over the pattern's pairs.

        Row i stands at position q_offset + i and key j at k_offset + j, of a whole of kv_len keys; a key before 0 or
        past the end of the whole is not attended. Positions are integers, or integer tensors of one element or of one
        a batch entry, on q's device: these are read when the call runs, and nothing waits for them.

        Under autocast q, k and v are cast to its dtype. No kernel adds in an order that varies: the same call on the
        same device gives the same bits, gradients too, whatever torch.use_deterministic_algorithms says.

        Args:
            q: `[batch, num_q_heads, q_len, head_dim]`, any strides, last dimension dense.
            k: `[batch, num_kv_heads, kv_len, head_dim]`; num_q_heads is a multiple of num_kv_heads.
            v: `[batch, num_kv_heads, kv_len, v_head_dim]`.
            return_lse: Also give the log-sum-exp of each row's scores.
            scale: A number, or a tensor of one, on q's device or the CPU, which has a gradient; 1/sqrt(head_dim) by
                default. A tensor multiplies q, in q's dtype.
            sinks: `[num_q_heads]`, of any float dtype, on q's device: one more logit in each row of a head, in the
                denominator and in lse, without a value. Has a gradient.
            q_offset: Position of the first row; by default the last row stands at the last key of the whole.
            k_offset: Position of the first key; 0 by default.
            kv_len: Keys of the whole; by default it ends with the last key that is given.
            missing_keys: Where numbers say that a row attends a key that is not given, "refuse" is an error and
                "ignore" leaves the key out, for those who merge results by lse.
            q_lens: `[batch]`, how many rows of each entry there are: the others have out 0 and lse -inf.
            kv_lens: `[batch]`, how many keys of each entry there are. Each entry has a whole of its own.
            cu_seqlens_q: `[requests + 1]`, request i is rows cu[i] .. cu[i+1]-1 of q `[tokens, num_q_heads, head_dim]`;
                the answer is packed too, lse `[num_q_heads, tokens]`. A request counts as a batch entry.
            cu_seqlens_k: The same of k and v, `[tokens, num_kv_heads, ..]`.
            max_seqlen_q: No request has more rows; as many as there are tokens by default.
            max_seqlen_k: No request has more keys.
            prepared: What `prepare` answered: these tensors are not given again.
            tensors: The pattern's free names. They are read when the call runs, in its stream or its graph.

        Returns:
            out `[batch, num_q_heads, q_len, v_head_dim]` in q's dtype, and with `return_lse` the natural-log lse in
            float32, `[batch, num_q_heads, q_len]`. A row without keys has out 0 and lse -inf, or its sink.

        Raises:
            ArgumentError: Shapes, dtypes or devices do not fit.
            BindError: A tensor is missing or one too many.
            UnsupportedError: The backend cannot serve this; the message says why.
        """
        if self._calls is None:
            self._calls = self.calls()
        if sinks is not None:
            self._calls.check_sinks(sinks, q)
        if (
            q_offset is k_offset is kv_len is q_lens is kv_lens is cu_seqlens_q is cu_seqlens_k is None
            and max_seqlen_q is max_seqlen_k is None
            and missing_keys == "refuse"
        ):
            out, lse = self._calls.call(q, k, v, scale, tensors, prepared)
        else:
            lengths = q_lens, kv_lens, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k
            placement = Placement(q_offset, k_offset, kv_len, *lengths, missing_keys)
            out, lse = self._calls.placed(q, k, v, scale, placement, tensors, prepared)
        if sinks is None:
            return (out, lse) if return_lse else out
        taken = self._calls.out_with_sinks(out, lse, sinks, cu_seqlens_q is not None)
        if not return_lse:
            return taken
        return taken, self._calls.lse_with_sinks(lse, sinks, q_lens, cu_seqlens_q)

    def prepare(self, **tensors: Any) -> Prepared:
        """Copies tensors of the pattern, for calls to which they are given as `prepared=`.

        What a call derives from them, lists of blocks or ends of documents, serves all later ones: in a model all
        layers of a forward pass, and its backward pass. Any pattern may take it that has these names.

        Args:
            tensors: Free names of the pattern, some or all.

        Raises:
            BindError: One is not in the pattern, or not of integers.
        """
        if self._calls is None:
            self._calls = self.calls()
        return self._calls.prepare(tensors)

    def decoder(
        self,
        *,
        num_q_heads: int,
        num_kv_heads: int,
        head_dim: int,
        max_batch: int,
        max_kv_len: int,
        v_head_dim: int | None = None,
        max_new: int = 1,
        dtype: torch.dtype | str = "bfloat16",
        device: torch.device | str = "cuda",
    ) -> Decoder:
        """What computes decode steps over a cache of `spattn.serving`; made once, for steps of any lengths.

        Args:
            num_q_heads: Heads of q and out.
            num_kv_heads: Heads of keys and values.
            head_dim: Width of a head.
            max_batch: Requests of a step, at most.
            max_kv_len: Tokens that a request holds, at most.
            v_head_dim: Width of a head of values and out, as wide if not given.
            max_new: New rows of a request in a step, at most.
            dtype: Of q and out, torch's or its name.
            device: Where all tensors are.

        Raises:
            ArgumentError: E060, numbers do not fit each other.
            UnsupportedError: E061, the backend cannot serve this; the message says why.
            MissingDependencyError: torch is not installed.
        """
        made: Decoder = _serving().Decoder(
            self,
            num_q_heads=num_q_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            v_head_dim=v_head_dim,
            max_batch=max_batch,
            max_kv_len=max_kv_len,
            max_new=max_new,
            dtype=dtype,
            device=device,
        )
        return made

    def calls(self) -> Calls:
        """What answers the calls of whoever holds it.

        Raises:
            MissingDependencyError: torch is not installed.
        """
        return cast("Calls", _execution().Calls(self, self._plan, dict(self._compiled.roles)))

    def missing_key(self, positions: Positions, num_heads: int, batch_size: int) -> tuple[int, int] | None:
        """Positions of a row and of a key that it attends and that is not given, whatever tensors hold.

        Raises:
            UnsupportedError: E096, that takes too long to find.
        """
        return missing_key(self._compiled.condition, positions, num_heads, batch_size)

    @property
    def reads_batch(self) -> bool:
        """Does the pattern ask which batch entry a pair belongs to?"""
        return bool(symbols(self._compiled.condition) & {"b", "batch_size"})

    def groups(self, batch_size: int, num_heads: int) -> Mapping[tuple[bool, ...], NDArray[np.int64]]:
        """Groups of pairs `b * num_heads + h` that have a layout of their own."""
        return _groups(self._compiled, batch_size, num_heads)

    def layout(self, q_len: int | None = None, kv_len: int | None = None, *, group: int = 0) -> Layout:
        """The block layout: passes, walks, ranges.

        Its bounds are formulas, so it is the same for every length; lengths may be named and change nothing. Where rows
        are tiled by residue classes there is another, without them, which short calls take; `explain` tells of both.

        Args:
            q_len: Queries, in tokens.
            kv_len: Keys, in tokens.
            group: Which group of heads, where `heads(..)` or `batch(..)` part them.
        """
        del q_len, kv_len
        return self.layout_of(self._values(group))

    def source(self, *, group: int = 0, backward: bool = False, standalone: bool = False) -> str:
        """The generated Triton module, a file to read: of attention, or of its gradients.

        It imports functions from `spattn.kernels`; `standalone` writes them out, so that it needs Triton alone.
        """
        values = self._values(group)
        module = self.backward_module_of(values) if backward else self.module_of(values)
        return module.standalone if standalone else module.text

    def layout_of(self, values: tuple[bool, ...], by_residue: bool = True) -> Layout:
        """The layout of the group of heads for which the conditions on heads have these values.

        With `by_residue` rows may be tiled by residue classes; a call takes whichever is predicted to be quicker.
        """
        return self._compiled.layout(values, by_residue=by_residue)

    def module_of(self, values: tuple[bool, ...], by_residue: bool = True, language: str = "triton") -> ModuleSource:
        """The generated module of such a group in a language, and what a launcher must know of it."""
        return self._compiled.source(values, by_residue, language)

    def transposed_of(self, values: tuple[bool, ...], by_residue: bool = True) -> Layout:
        """The layout of such a group with keys as rows: the gradients of k and v walk along it."""
        return self._compiled.layout(values, "keys", by_residue)

    def backward_module_of(
        self, values: tuple[bool, ...], by_residue: bool = True, language: str = "triton"
    ) -> ModuleSource:
        """The generated module of such a group's gradients."""
        return self._compiled.backward_source(values, by_residue, language)

    def decode_source(self, values: tuple[bool, ...]) -> DecodeSource:
        """The generated module of such a group's decode steps."""
        return self._compiled.decode_source(values)

    def explain(
        self,
        q_len: int = 4096,
        kv_len: int | None = None,
        *,
        num_heads: int = 1,
        num_kv_heads: int | None = None,
        batch_size: int = 1,
        head_dim: int = 128,
        v_head_dim: int | None = None,
        dtype: torch.dtype | str = "bfloat16",
        q_offset: int | None = None,
        k_offset: int = 0,
        num_keys: int | None = None,
        missing_keys: MissingKeys = "refuse",
        **tensors: Any,
    ) -> Explanation:
        """What the pattern means and what the kernels do at these lengths; `print` it.

        Args:
            q_len: Queries, in tokens.
            kv_len: Keys of the whole; as many as queries if not given, or up to the last of `num_keys`.
            num_heads: Query heads.
            num_kv_heads: Heads of k and v, as many as query heads if not given.
            batch_size: Batch entries.
            head_dim: Width of a head.
            v_head_dim: Width of a head of v and out, as wide if not given.
            dtype: Of q, k, v and out, torch's or its name.
            q_offset: Position of the first query among the keys; kv_len - q_len if not given.
            k_offset: Position of the first key that is given.
            num_keys: How many are given; all up to the last of the whole if it is not said.
            missing_keys: As in a call: "refuse" is an error where a row attends a key that is not given.
            tensors: The pattern's free names; example tensors stand in if none is given.

        Raises:
            ArgumentError: E060, the heads of k and v do not divide those of q, the dtype is not served, or a position
                or a key that is not given is refused as in a call.
        """
        from spattn.analysis.explain import explain
        from spattn.call.positions import standing
        from spattn.call.shape import Shape, dtype_name

        at = standing(q_len, kv_len, q_offset=q_offset, k_offset=k_offset, num_keys=num_keys)
        shape = Shape(
            batch_size=batch_size,
            num_q_heads=num_heads,
            num_kv_heads=num_kv_heads or num_heads,
            q_len=at.q_len,
            kv_len=at.kv_len,
            q_offset=at.q_offset,
            k_offset=at.k_offset,
            num_keys=at.num_keys,
            head_dim=head_dim,
            v_head_dim=v_head_dim or head_dim,
            dtype=dtype_name(dtype),
            tf32=self.tf32,
        )
        return explain(self, shape, tensors, missing_keys)

    def _values(self, group: int) -> tuple[bool, ...]:
        return list(self.groups(1, 64))[group] if self._compiled.pair_conditions else ()

    @property
    def records(self) -> Cache | None:
        """Where measured tiles are kept; None where nothing is measured."""
        return default_cache() if self.tune else None

    def publish(self, text: str) -> Path:
        """The file of the cache that holds generated text."""
        return _published(text)

    def __repr__(self) -> str:
        score = f", score={self.score!r}" if self.score else ""
        return f"spattn.compile({str(self.pattern)!r}, backend={self.backend!r}{score})"

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (self._plan.text,)


def compile(  # noqa: A001  the name that users expect
    pattern: str | Pattern,
    *,
    backend: str = "auto",
    layer: int | None = None,
    score: str | None = None,
    tf32: bool = False,
    tune: bool = False,
    **bindings: float,
) -> Attention:
    """An attention function for a pattern.

    Args:
        pattern: The language's text, or a Pattern.
        backend: "triton", "torch", or "auto": the first that can serve a call, by call.
        layer: The layer that `layers(..)` asks about.
        score: What becomes of scale * (q . k) before the mask, such as "softcap(30) + alibi(slopes)".
        tf32: Let float32 products use TF32; else they are IEEE.
        tune: Measure which tiles are fastest, at the first call of each kind on a GPU, and keep what was found in the
            cache; else they are those that are predicted to be.
        bindings: Integers for names in the pattern, numbers for those in the score; other names stay free and are
            given as tensors at each call, of floats for the score: these have gradients.

    Raises:
        PatternError: The text is no pattern.
        BindError: A binding is of the wrong kind or not in the pattern.
        UnsupportedError: There is no such backend, and no dropout.

    >>> attn = compile("local(256) | global([0, cls])", cls=7)
    >>> attn.pattern
    Pattern('local(256) | global([0, 7])')
    """
    require(backend)
    refuse_dropout(bindings)
    own = {} if score is None else {name: one for name, one in bindings.items() if name in names_of(score)}
    scores = None if score is None else parse_score(score, own)
    words = names_of(str(pattern)) if own else frozenset()
    rest: dict[str, Any] = {name: one for name, one in bindings.items() if name not in own or name in words}
    parsed = Pattern.of(pattern, layer=layer, **rest)
    compiled = compile_pattern(parsed.syntax, score=scores)
    tensors = tuple(name for name, _ in compiled.roles)
    shared = [] if scores is None else [name for name in tensors if name in reads(scores)]
    if shared:
        raise BindError("E038", f"{shared[0]} is a tensor of the pattern, of integers, and of the score, of floats")
    names = tensors if scores is None else (*tensors, *reads(scores))
    plan = Plan(str(parsed), backend, bool(tf32), bool(tune), names, "" if scores is None else str(scores))
    return Attention(parsed, compiled, plan)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: str | Pattern,
    *,
    backend: str = "auto",
    layer: int | None = None,
    score: str | None = None,
    tf32: bool = False,
    tune: bool = False,
    **names: Any,
) -> Any:
    """`compile(pattern)(q, k, v)` through a cache of this process.

    Among `names` are the arguments of a call, as `Attention` has them; of the others integers are bound, and floats to
    names of the score, and the rest are run-time tensors. The other arguments are those of `compile`.
    """
    of_score = frozenset() if score is None else names_of(score)
    bindings: dict[str, float] = {
        name: float(value) if isinstance(value, float | np.floating) else int(value)
        for name, value in names.items()
        if name not in KEYWORDS
        and (isinstance(value, int | np.integer) or (name in of_score and isinstance(value, float | np.floating)))
    }
    tensors = {name: value for name, value in names.items() if name not in bindings}
    attn = _KNOWN[_known(str(pattern), backend, layer, score, bool(tf32), bool(tune), tuple(sorted(bindings.items())))]
    return attn(q, k, v, **tensors)


def _known(
    pattern: str,
    backend: str,
    layer: int | None,
    score: str | None,
    tf32: bool,
    tune: bool,
    bindings: tuple[tuple[str, float], ...],
) -> str:
    """Sees to it that `_KNOWN` has an attention function; under which name."""
    name = f"{backend} {layer} {tf32} {tune} {bindings} {score!r} {pattern}"
    if name not in _KNOWN:
        if len(_KNOWN) >= MAX_KNOWN:
            _KNOWN.pop(next(iter(_KNOWN)))
        _KNOWN[name] = compile(
            pattern, backend=backend, layer=layer, score=score, tf32=tf32, tune=tune, **dict(bindings)
        )
    return name


# as torch.compiler.assume_constant_result has it, which cannot be asked without torch: a call that is traced asks once
_known._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=256)
def restored(text: str) -> Attention:
    """The attention function of a plan's text, one for all who hold it.

    Raises:
        PatternError: The text is no plan, or its pattern is none.
        UnsupportedError: There is no such backend.
    """
    plan = Plan.of(text)
    require(plan.backend)
    parsed = Pattern.of(plan.pattern)
    score = parse_score(plan.score) if plan.score else None
    return Attention(parsed, compile_pattern(parsed.syntax, score=score), plan)


@lru_cache(maxsize=256)
def _groups(compiled: Compiled, batch_size: int, num_heads: int) -> Mapping[tuple[bool, ...], NDArray[np.int64]]:
    return pair_groups(compiled.pair_conditions, batch_size, num_heads)


@lru_cache(maxsize=256)
def _published(text: str) -> Path:
    return default_cache().publish(text)


def _serving() -> Any:
    """Caches and decoders, which stand above this module and are imported when one is asked for."""
    _execution()
    return import_module("spattn.serving")


def _execution() -> Any:
    """The part that needs torch, imported when it is there or called."""
    try:
        from spattn import operators  # noqa: F401  tells torch of them
        from spattn.runtime import execution
    except ImportError as error:
        raise MissingDependencyError(
            "E050", f"running needs torch: {error}", hint="pip install 'spattn[torch]'"
        ) from error
    return execution
