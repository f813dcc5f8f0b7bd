"""`Decoder`: a pattern as a function of new rows and a cache. Made by `Attention.decoder`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spattn.attend import Attention
from spattn.backends.gpu import missing
from spattn.call.shape import dtype_name
from spattn.errors import ArgumentError, UnsupportedError
from spattn.gpu.decoding import refusal
from spattn.gpu.step import StepSizes
from spattn.relation.rings import first_missing
from spattn.runtime.sinks import check_sinks
from spattn.runtime.tensors import require_tensor
from spattn.serving.kernels import Kernels
from spattn.serving.reference import Reference
from spattn.serving.ring import Ring
from spattn.serving.step import Step, Steps
from spattn.serving.storage import FLOAT8, MOST, Storage, check_integers

MAX_KNOWN = 256


class Decoder:
    """Attention of the last rows of many requests over the keys that a cache holds.

    It looks at no number on the device but where the torch backend computes. There are no gradients.

    Args:
        attention: What is computed.
        num_q_heads: Heads of q and out.
        num_kv_heads: Heads of keys and values.
        head_dim: Width of a head.
        v_head_dim: Width of a head of values and out, as wide if None.
        max_batch: Requests of a step, at most.
        max_kv_len: Tokens that a request holds, at most.
        max_new: New rows of a request in a step, at most.
        dtype: Of q and out, torch's or its name.
        device: Where all tensors are.

    Raises:
        ArgumentError: E060, numbers do not fit each other.
        UnsupportedError: E061, the backend cannot serve this; the message says why.
    """

    def __init__(
        self,
        attention: Attention,
        *,
        num_q_heads: int,
        num_kv_heads: int,
        head_dim: int,
        v_head_dim: int | None = None,
        max_batch: int,
        max_kv_len: int,
        max_new: int = 1,
        dtype: torch.dtype | str = "bfloat16",
        device: torch.device | str = "cuda",
    ) -> None:
        self.attention = attention
        self.num_q_heads, self.num_kv_heads = num_q_heads, num_kv_heads
        self.head_dim, self.v_head_dim = head_dim, head_dim if v_head_dim is None else v_head_dim
        self.max_batch, self.max_kv_len, self.max_new = max_batch, max_kv_len, max_new
        for name in ("num_q_heads", "num_kv_heads", "head_dim", "v_head_dim", "max_batch", "max_kv_len", "max_new"):
            _check_number(name, getattr(self, name))
        if num_q_heads % num_kv_heads:
            message = f"{num_kv_heads} key heads do not divide {num_q_heads} query heads"
            raise ArgumentError("E060", message, hint="with GQA num_q_heads is a multiple of num_kv_heads")
        self.dtype: torch.dtype = getattr(torch, dtype_name(dtype))
        self.device = torch.device(device)
        self._steps = self._chosen()
        self._fitting: set[tuple[Any, ...]] = set()

    def __call__(
        self,
        q: Tensor,
        cache: Storage,
        cu_seqlens_q: Tensor | None = None,
        out: Tensor | None = None,
        return_lse: bool = False,
        sinks: Tensor | None = None,
        scale: float | None = None,
        shared_keys: int = 0,
        **tensors: Any,
    ) -> Any:
        """softmax(scale * q k^T) v of new rows, over the pattern's pairs.

        Request b is the call of keys 0 .. n-1 for n = kv_lens[b], its new ones already appended, whose m rows are the
        last: row i stands at n - m + i. A request without keys or rows writes nothing.

        Args:
            q: `[tokens, num_q_heads, head_dim]` with `cu_seqlens_q`, else `[batch, num_q_heads, q_len, head_dim]`.
            cache: Keys and values of all requests.
            cu_seqlens_q: int32 `[batch + 1]`: rows of request b are cu[b] .. cu[b+1]-1.
            out: Where to write, like q with v_head_dim; rows of no request stay as they are. New and 0 if not given.
            return_lse: Also give the log-sum-exp of each row's scores.
            sinks: `[num_q_heads]`: one more logit in each row of a head, without a value.
            scale: Factor of the scores, 1/sqrt(head_dim) by default.
            shared_keys: All requests that have keys begin with these, so many: a launch more reads them once, where
                they lie for the first request, whose table lists them though it may be empty. For steps of one row.
            tensors: The free names of pattern and score.

        Returns:
            out, and with `return_lse` the natural-log lse in float32, `[batch, num_q_heads, q_len]`, of packed rows
            `[num_q_heads, tokens]`, -inf for rows of no request.

        Raises:
            ArgumentError: E060, shapes, dtypes, devices or lengths do not fit.
            BindError: A tensor is missing or one too many.
            UnsupportedError: A ring does not hold what the pattern needs.
        """
        self._check(q, cache, cu_seqlens_q)
        if shared_keys:
            self._check_shared(q, cache, cu_seqlens_q, shared_keys)
        if isinstance(cache, Ring):
            self._keeps_what_drafts_need(cache, tensors)
        out = self._out(q, out)
        if sinks is not None:
            check_sinks(sinks, q)
        lse = None
        if return_lse:
            kind = torch.float64 if q.dtype == torch.float64 else torch.float32
            shape = q.shape[:3] if cu_seqlens_q is None else (q.shape[1], q.shape[0])
            lse = torch.full(shape, -torch.inf, dtype=kind, device=q.device)
        if q.numel():
            self._steps(Step(q, cache, cu_seqlens_q, out, lse, sinks, scale, shared_keys, tensors))
        return (out, lse) if return_lse else out

    def fits(self, cache: Storage) -> None:
        """Refuses a cache that the decoder cannot read, or that may drop keys which its pattern needs.

        Raises:
            ArgumentError: E060, its shape, dtype or device do not fit, or a ring is too short for `max_new`.
            UnsupportedError: E061, a ring drops keys that are needed; E062, the pattern cannot be decoded.
        """
        wanted = (self.num_kv_heads, self.head_dim, self.v_head_dim)
        has = (cache.num_kv_heads, cache.keys.shape[3], cache.values.shape[3])
        if has != wanted:
            names = "(num_kv_heads, head_dim, v_head_dim)"
            raise ArgumentError("E060", f"the cache has {names} = {has}, and the decoder {wanted}")
        if cache.dtype not in (self.dtype, *FLOAT8):
            raise ArgumentError("E060", f"the cache is {cache.dtype}; it is {self.dtype} as q, or float8")
        if not _same_device(cache.device, self.device):
            raise ArgumentError("E060", f"the cache is on {cache.device}, and the decoder on {self.device}")
        if cache.batch_size > self.max_batch:
            raise ArgumentError("E060", f"the cache has {cache.batch_size} requests; max_batch is {self.max_batch}")
        if isinstance(cache, Ring):
            self._holds_what_is_needed(cache)

    def _chosen(self) -> Steps:
        """What computes the steps: kernels where the backend's name allows them and they can."""
        name = self.attention.backend
        if name != "torch":
            sizes = StepSizes(
                self.num_q_heads,
                self.num_kv_heads,
                self.head_dim,
                self.v_head_dim,
                self.max_batch,
                self.max_kv_len,
                self.max_new,
                self.dtype,
                self.device,
                self.attention.tf32,
            )
            why = missing() or refusal(self.attention, sizes)
            if why is None:
                return Kernels(self.attention, sizes)
            if name != "auto":
                hint = "backend='torch' gathers the keys and reads lengths"
                raise UnsupportedError("E061", f"backend {name!r}: {why}", hint=hint)
        return Reference(self.attention, self.max_kv_len, self.max_new)

    def _check(self, q: Tensor, cache: Storage, cu_seqlens_q: Tensor | None) -> None:
        if not isinstance(cache, Storage):
            hint = "spattn.serving.Dense(k, v, kv_lens), Paged or Ring"
            raise ArgumentError("E060", f"the cache is a {type(cache).__name__}", hint=hint)
        key: tuple[Any, ...] = (type(cache), cache.keys.shape, cache.values.shape[3], cache.dtype, cache.device)
        key = (*key, cache.batch_size)
        if isinstance(cache, Ring):
            key = (*key, cache.pieces, cache.window, cache.rollback, cache.capacity)
        if key not in self._fitting:
            self.fits(cache)
            if len(self._fitting) >= MAX_KNOWN:
                self._fitting.clear()
            self._fitting.add(key)
        require_tensor("q", q)
        if q.dtype != self.dtype:
            raise ArgumentError("E060", f"q is {q.dtype}, and the decoder {self.dtype}")
        if q.device != cache.device:
            raise ArgumentError("E060", f"q is on {q.device} and the cache on {cache.device}")
        heads, batch = (self.num_q_heads, self.head_dim), cache.batch_size
        if cu_seqlens_q is None:
            if q.dim() != 4 or (q.shape[0], q.shape[1], q.shape[3]) != (batch, *heads):
                wanted = f"[{batch}, {heads[0]}, q_len, {heads[1]}]"
                raise ArgumentError(
                    "E060", f"q has shape {list(q.shape)}, not {wanted}", hint="cu_seqlens_q packs rows"
                )
            if q.shape[2] > self.max_new:
                raise ArgumentError("E060", f"q has {q.shape[2]} rows a request; max_new is {self.max_new}")
            return
        check_integers("cu_seqlens_q", cu_seqlens_q, q.device, 1)
        if cu_seqlens_q.shape[0] != batch + 1:
            ends = f"cu_seqlens_q has shape {list(cu_seqlens_q.shape)}"
            raise ArgumentError("E060", f"{ends}; it is the ends of all requests, [{batch + 1}]")
        if q.dim() != 3 or tuple(q.shape[1:]) != heads:
            raise ArgumentError("E060", f"q has shape {list(q.shape)}, not [tokens, {heads[0]}, {heads[1]}]")

    def _check_shared(self, q: Tensor, cache: Storage, cu_seqlens_q: Tensor | None, shared_keys: int) -> None:
        most = min(self.max_kv_len, cache.capacity)
        if isinstance(shared_keys, bool) or not isinstance(shared_keys, int) or not 0 < shared_keys <= most:
            raise ArgumentError("E060", f"shared_keys is {shared_keys!r}; it is a number up to {most}")
        if cu_seqlens_q is not None or q.shape[2] != 1:
            message = "requests share keys in steps of one row each"
            raise ArgumentError("E060", message, hint="give q [batch, num_q_heads, 1, head_dim]")
        if isinstance(cache, Ring):
            raise ArgumentError("E060", "a ring holds keys of one request; those of a paged or dense cache are shared")

    def _out(self, q: Tensor, out: Tensor | None) -> Tensor:
        shape = (*q.shape[:-1], self.v_head_dim)
        if out is None:
            return q.new_zeros(shape)
        require_tensor("out", out)
        if tuple(out.shape) != shape or out.dtype != q.dtype or out.device != q.device:
            given = f"{out.dtype} {list(out.shape)} on {out.device}"
            raise ArgumentError("E060", f"out is {given}, not {q.dtype} {list(shape)} on {q.device}")
        return out

    def _holds_what_is_needed(self, ring: Ring) -> None:
        if self.max_new > ring.max_new:
            raise ArgumentError(
                "E060",
                f"the ring has room for {ring.max_new} new tokens a call, and max_new is {self.max_new}",
                hint=f"Ring.allocate(.., max_new={self.max_new})",
            )
        age = ring.window - ring.rollback - self.max_new
        length = min(self.max_kv_len, ring.capacity)
        heads = {"num_heads": self.num_q_heads, "num_kv_heads": self.num_kv_heads}
        live = self.attention.pattern.live(**heads, length=length)
        missing = first_missing(live.needed, ring.pieces, age, length)
        if missing is not None:
            tokens, key = missing
            raise UnsupportedError(
                "E061",
                f"the ring drops keys that {self.attention.pattern} needs: of {tokens} tokens key {key}",
                hint="make it of this pattern: Ring.allocate(pattern.live(), ..)",
            )

    def _keeps_what_drafts_need(self, ring: Ring, tensors: Mapping[str, Any]) -> None:
        most = self.max_new + ring.rollback
        for name, role in self.attention.pattern.free_names.items():
            if role == "draft depths" and name in tensors and tensors[name].shape[-1] > most:
                drafted = tensors[name].shape[-1]
                raise ArgumentError(
                    "E060",
                    f"{name} tells of {drafted} drafted tokens; with max_new={self.max_new} the ring serves {most}",
                    hint=f"Ring.allocate(.., rollback={drafted - self.max_new})",
                )


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise ArgumentError("E060", f"{name} is a number from 1 to {MOST}, not {value!r}")


def _same_device(one: torch.device, other: torch.device) -> bool:
    """The same, or of the same kind where one has no number."""
    return one.type == other.type and (None in (one.index, other.index) or one.index == other.index)
