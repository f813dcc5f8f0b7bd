"""One decode workload: all peers, one after the other, for caches leave no room for what others keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spattn.bench.deadline import SPENT, Deadline
from spattn.bench.decode.case import DecodeCase
from spattn.bench.decode.judge import DecodeJudge
from spattn.bench.decode.layers import TooLargeError
from spattn.bench.decode.peers.peer import DecodePeer
from spattn.bench.decode.trial import DecodeTrial
from spattn.bench.records import Decoded, Outcome
from spattn.bench.spoken import say, size
from spattn.bench.trial import described


@dataclass(frozen=True)
class DecodeComparison:
    """A case and those who are set side by side on it.

    Attributes:
        bandwidth: Bytes a second that the device's memory gives.
        times: Replays of which the median is taken.
        deadline: Asked before each peer.
        report: Told of each record as soon as it is known.
        forget: Called after each peer.
    """

    case: DecodeCase
    peers: Sequence[DecodePeer]
    bandwidth: float
    times: int
    deadline: Deadline
    report: Callable[[Decoded], None]
    forget: Callable[[], None]

    def run(self) -> None:
        """All peers."""
        try:
            say(self._said())
        except Exception as error:  # noqa: BLE001  it does not fit, mostly
            fits = not isinstance(error, TooLargeError)
            outcome, why = (Outcome.FAILED, described(error)) if fits else (Outcome.REFUSED, str(error))
            for peer in self.peers:
                self.report(self._record(DecodeTrial(peer, self.case, outcome, why), known=False))
            return
        judge = DecodeJudge(self.case)
        for peer in self.peers:
            one = DecodeTrial(peer, self.case)
            if self.deadline.allows(f"{self.case.workload.name}, {peer.name}"):
                one.run(judge, self.times)
            else:
                one.end(Outcome.LEFT_OUT, SPENT)
            self.report(self._record(one))
            self.forget()

    def _said(self) -> str:
        one, layers = self.case.workload, self.case.layers
        return (
            f"{one.name}: {one.pattern.text}, {one.q_heads}/{one.kv_heads} heads, head dimension {one.head_dim}, "
            f"{self.case.keys / one.batch:.0f} keys a request, {len(layers.caches)} layers, "
            f"which read {size(layers.rotated_bytes)}"
        )

    def _record(self, one: DecodeTrial, *, known: bool = True) -> Decoded:
        work, case = self.case.workload, self.case
        read = case.needed_bytes if known else 0
        return Decoded(
            workload=work.name,
            pattern=str(work.compiled),
            length=work.length,
            peer=one.peer.name,
            kind=one.peer.kind,
            outcome=one.outcome,
            detail=one.detail,
            batch=work.batch,
            heads=(work.q_heads, work.kv_heads),
            head_dim=work.head_dim,
            stored=work.stored,
            numbers=work.numbers,
            ragged=work.ragged,
            new=work.new,
            keys=case.keys if known else 0,
            needed_bytes=read,
            floor_us=read / self.bandwidth * 1e6,
            layers=len(case.caches) if known else 0,
            rotated_bytes=case.layers.rotated_bytes if known else 0,
            **one.numbers,
        )
