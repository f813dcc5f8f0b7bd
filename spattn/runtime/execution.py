"""One call: checked, given to a backend, answered; a call like an earlier one is answered at once."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch

from spattn.backends.registry import Backend, choose
from spattn.call.positions import BY_REQUEST, USUAL, Numbers, Placement, Positions, placed, refused
from spattn.call.prepared import NONE, Kept, Prepared
from spattn.call.request import Again, CompiledPattern, Differentiable, Request, wants_gradient
from spattn.errors import BindError
from spattn.runtime import derivatives, operators
from spattn.runtime.arguments import FLOATS, as_tensors, check_given, checked, checks_values, named
from spattn.runtime.context import as_autocast_wants, is_plain, is_strange, is_transformed, is_watched
from spattn.runtime.kinds import kind_of, numbers_of
from spattn.runtime.numbers import scaled
from spattn.runtime.options import Plan
from spattn.runtime.placing import as_batch, only_of_the_whole, read_placement
from spattn.runtime.sinks import check_sinks, lse_with_sinks, out_with_sinks
from spattn.runtime.tensors import PLAIN, require_tensor
from spattn.scores.parser import parse
from spattn.scores.words import reads, variables

MAX_KINDS = 1024


class Pattern(CompiledPattern, Protocol):
    """A compiled pattern, as calls see it."""

    @property
    def reads_batch(self) -> bool:
        """Does it ask which batch entry a pair belongs to?"""
        ...

    def missing_key(self, positions: Positions, num_heads: int, batch_size: int) -> tuple[int, int] | None:
        """Positions of a row and of a key that it attends and that is not given, whatever tensors hold."""
        ...


class Arguments(NamedTuple):
    """What a user gives, unchecked; shapes as in `spattn.Attention`, those of packed rows with a batch of one."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float | None
    said: Numbers
    tensors: Mapping[str, object]
    shared: Prepared | None = None


class Calls:
    """The calls of one Attention.

    Args:
        plans: What is computed.
        plan: The same as text, for operators.
        roles: The pattern's free names, and what each is.
    """

    check_sinks = staticmethod(check_sinks)
    out_with_sinks = staticmethod(out_with_sinks)
    lse_with_sinks = staticmethod(lse_with_sinks)

    def __init__(self, plans: Pattern, plan: Plan, roles: Mapping[str, str]) -> None:
        self._plans, self._backend, self._tf32 = plans, plan.backend, plan.tf32
        self._text, self._names = plan.text, plan.tensors
        self._score = parse(plan.score) if plan.score else None
        self._floats = () if self._score is None else tuple(reads(self._score))
        self._roles = {**roles, **dict.fromkeys(self._floats, FLOATS)}
        self._of_pattern = roles
        self._again: dict[Any, Again] = {}
        self._differentiable: dict[Any, Differentiable] = {}
        self._last: tuple[bool, Any, Again] | None = None

    def call(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float | torch.Tensor | None,
        tensors: Mapping[str, object],
        shared: Prepared | None = None,
        said: Numbers = USUAL,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, lse), differentiable.

        Raises:
            ArgumentError: Shapes, dtypes or devices do not fit.
            BindError: A tensor is missing or one too many.
            UnsupportedError: No backend that may serve it can; or a derivative that there is not.
        """
        if scale is not None and type(scale) is not float:
            q, scale = scaled(q, scale)
        traced = torch.compiler.is_compiling()
        if not traced and is_plain(q, k, v) and not any(map(is_strange, self._given(tensors))):
            return self.answer(Arguments(q, k, v, scale, said, tensors, shared))
        for name, x in (("q", q), ("k", k), ("v", v)):
            require_tensor(name, x)
        q, k, v = as_autocast_wants(q, k, v)
        watched = traced or is_watched(q, k, v, *self._given(tensors))
        if watched or is_transformed():
            by_request = tuple(name for name in BY_REQUEST if name in tensors)
            listed = self._listed(tensors, shared, q.device)
            listed = [*listed, *[cast(torch.Tensor, tensors[name]) for name in by_request]]
            through = operators.forward if watched else derivatives.transformed
            return through(q, k, v, listed, self._text, scale, said, by_request)
        return self.answer(Arguments(q, k, v, scale, said, tensors, shared))

    def placed(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float | torch.Tensor | None,
        placement: Placement,
        tensors: Mapping[str, object],
        shared: Prepared | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same where the user says where rows and keys stand; those of packed tensors are answered packed."""
        said, by_request = read_placement(placement)
        packed = "cu_seqlens_q" in by_request
        q, k, v = (as_batch(name, x) if packed else x for name, x in (("q", q), ("k", k), ("v", v)))
        k, v, said = only_of_the_whole(k, v, said, q.shape[2], by_request)
        out, lse = self.call(q, k, v, scale, {**tensors, **by_request}, shared, said)
        return (out.squeeze(0).transpose(0, 1), lse.squeeze(0)) if packed else (out, lse)

    def answer(self, given: Arguments) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, lse) by kernels; errors are those of `call`."""
        q, k, v, _, said, tensors, shared = given
        if said is not USUAL and said.missing_keys == "refuse":
            self._refuse_missing_keys(given)
        numbers = _numbers(given)
        if numbers is None:
            return self._looked_at(given, None)
        wanted, last, kind = wants_gradient(q, k, v, self._given(tensors)), self._last, None
        again: Again | None
        if last is not None and last[0] is wanted and last[1] == numbers:
            _, numbers, again = last
        else:
            kind = kind_of(numbers)
            again = self._again.get((wanted, kind))
        answer = None if again is None else again(q, k, v, _prepared(tensors, shared), said, numbers)
        if again is None or answer is None:
            kind = kind or kind_of(numbers)
            return self._looked_at(given, kind and (wanted, kind))
        self._last = wanted, numbers, again
        return answer

    def differentiable(self, given: Arguments) -> Differentiable:
        """What differentiates calls of this kind; errors are those of `call`."""
        numbers = _numbers(given)
        kind = numbers and kind_of(numbers)
        known = self._differentiable.get(kind)
        if known is None:
            known = self.new_differentiable(given)
            if kind is not None:
                _remember(self._differentiable, kind, known)
            return known
        by_request = tuple(name for name in BY_REQUEST if name in given.tensors)
        return known.at(placed(given.said, by_request, given.q.shape[2], given.k.shape[2]))

    def new_differentiable(self, given: Arguments) -> Differentiable:
        """The same, not kept: lengths may be symbols."""
        request = self.request(given)
        return self.chosen(request).differentiable(self._plans, request)

    def arguments(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        tensors: Sequence[torch.Tensor],
        scale: float | None,
        said: Numbers = USUAL,
        by_request: tuple[str, ...] = (),
    ) -> Arguments:
        """Those of a call, from its tensors in the plan's order and those of positions after them.

        Raises:
            BindError: There are more or fewer than the plan names.
        """
        names = *self._names, *by_request
        if len(tensors) != len(names):
            raise BindError("E030", f"the plan names {len(names)} tensors, and there are {len(tensors)}")
        return Arguments(q, k, v, scale, said, dict(zip(names, tensors, strict=True)))

    def request(self, given: Arguments) -> Request:
        """The call, checked; errors are those of `call`."""
        return checked(**given._asdict(), tf32=self._tf32, roles=self._roles, score=self._score)

    def _refuse_missing_keys(self, given: Arguments) -> None:
        """Refuses a call with a row that wants a key which is not given; what only a device knows is not looked at."""
        q, k, said = given.q, given.k, given.said
        if said.k_offset in (None, 0) and said.kv_len is None or not q.dim() == k.dim() == 4:
            return
        at = placed(said, (), q.shape[2], k.shape[2])
        if at.given == (0, at.kv_len) or any(name in given.tensors for name in BY_REQUEST):
            return
        pair = self._plans.missing_key(at, q.shape[1], q.shape[0])
        if pair is not None:
            raise refused(at, pair)

    def chosen(self, request: Request) -> Backend:
        """The backend that serves a request.

        Raises:
            UnsupportedError: None can that may.
        """
        return choose(self._backend, self._plans, request)

    @property
    def reads_batch(self) -> bool:
        """Does the pattern, one of its tensors perhaps, or the score tell batch entries apart?"""
        spoken = self._score is not None and "b" in variables(self._score)
        return bool(self._of_pattern) or self._plans.reads_batch or spoken

    @property
    def floats(self) -> range:
        """The places of a score's tensors among those of the plan."""
        return range(len(self._names) - len(self._floats), len(self._names))

    def _given(self, tensors: Mapping[str, Any]) -> list[torch.Tensor]:
        """What a call gives of the score's tensors; the checks say what is missing or no tensor."""
        found = (tensors.get(name) for name in self._floats)
        return [one for one in found if isinstance(one, torch.Tensor)]

    def tensors(
        self,
        tensors: Mapping[str, object],
        device: torch.device,
        batch_size: int,
        num_q_heads: int,
        at: Positions,
    ) -> Mapping[str, torch.Tensor]:
        """The tensors of pattern and score of a call that others answer; errors are those of `call`.

        Args:
            tensors: What it gives.
            device: Where it runs.
            batch_size: Batch entries, or requests.
            num_q_heads: Query heads.
            at: Where rows and keys stand.
        """
        if not tensors and not self._roles:
            return NONE
        given = named(self._roles, tensors, None, device)
        check_given(self._roles, given, self._score, batch_size, num_q_heads, at)
        return given

    def prepare(self, tensors: Mapping[str, object]) -> Kept:
        """Copies of tensors of the pattern, for many calls; errors are those of `call`."""
        return Kept(as_tensors(self._of_pattern, tensors, None))

    def _listed(
        self, tensors: Mapping[str, object], shared: Prepared | None, device: torch.device
    ) -> list[torch.Tensor]:
        """The pattern's tensors in the plan's order."""
        own = {name: one for name, one in tensors.items() if name not in BY_REQUEST}
        found = named(self._roles, own, shared, device)
        return [found[name] for name in self._names]

    def _looked_at(self, given: Arguments, key: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Checks and serves a call; where it has a key, calls like it will be quicker."""
        request = self.request(given)
        served = self.chosen(request).serve(self._plans, request)
        if key is not None and served.again is not None:
            _remember(self._again, key, served.again)
        return served.out, served.lse


def _numbers(given: Arguments) -> Any:
    """All that may decide how a call is served, but for values and addresses; None where each call is looked at."""
    q, k, v, scale, said, tensors, shared = given
    if not type(q) is type(k) is type(v) is torch.Tensor:
        return None
    every: Mapping[str, Any] = {}
    if tensors or shared:
        every = {**(shared or NONE), **tensors}
        twice = len(every) < len(tensors) + len(shared or NONE)
        if twice or checks_values() or not all(type(one) in PLAIN for one in every.values()):
            return None
    try:
        return numbers_of(q, k, v, scale, said, every)
    except RuntimeError:  # a nested tensor has no strides: the checks say so
        return None


def _prepared(tensors: Mapping[str, Any], shared: Prepared | None) -> Prepared:
    if not tensors:
        return shared or NONE
    return Prepared(tensors, shared)


def _remember(kinds: MutableMapping[Any, Any], key: Any, value: Any) -> None:
    """Keeps what serves a kind of calls."""
    if len(kinds) >= MAX_KINDS:
        kinds.clear()
    kinds[key] = value
