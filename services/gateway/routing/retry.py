"""Whether a failed request is tried again, and where. Pure: values in, values out."""

from __future__ import annotations

import dataclasses

from services.backplane.errors import FleetError, Reason, Retry
from services.backplane.tracing.rpc import REQUEST_MODEL
from services.gateway.routing.candidates import Availability, InstanceCandidate
from services.gateway.telemetry.request_trace import UNTRACED, Hop, RequestTrace

# The instance is gone or about to go. Only these let the registry load the model elsewhere.
_LOST = frozenset(
    {
        Reason.INSTANCE_GONE,
        Reason.INSTANCE_DRAINING,
        Reason.INSTANCE_MISMATCH,
        Reason.INSTANCE_RECOVERING,
        Reason.WORKER_LOST,
        Reason.NEURON_LOST,
        Reason.SHUTTING_DOWN,
    }
)

# It was told to go: no fault of anybody's.
_TOLD_TO_GO = frozenset({Reason.INSTANCE_GONE, Reason.INSTANCE_DRAINING, Reason.SHUTTING_DOWN})
# The instance went, and the request had no part in it; of a worker's death it may be the cause.
_WENT = _TOLD_TO_GO | {Reason.NEURON_LOST}
# So many instances that go from under a request that waits there count as one attempt.
_MOVES_PER_ATTEMPT = 4


@dataclasses.dataclass(slots=True)
class RetryState:
    """What went wrong with one request so far.

    The rules of a retry:

    1. Nothing that the client has seen is repeated. An answer of which all tokens are known goes on
       behind them, on an instance whose neuron can do that (`ChoiceSink.may_go_on`). One that the
       client has seen nothing of begins anew (`ChoiceSink.may_restart`). Else it ends with its
       error.
    2. The error has to be one that another instance may not share: `Retry.ELSEWHERE` in the table
       of errors. A bad request fails everywhere and is not tried again.
    3. At most `gateway.attempts` instances are tried (`may_go_on`). One that was told to go while
       the request waited there counts as a quarter of an attempt: a fleet that drains may pass it
       on several times. Where one that was told to go, or whose neuron was lost, has made some
       tokens of the answer, counting begins anew, so that a long answer outlives any number of
       drains and of hosts that die one after the other.
    4. An instance that has failed is not tried again (`excluded`), unless its worker or neuron was
       lost and a later report says that it serves.
    5. Where no loaded instance is left, the model is placed anew if the last failure was the loss
       of an instance (`model_was_lost`); any other failure is the answer to the client.

    Attributes:
        attempts: most instances that are tried (`gateway.attempts`).
        last: the last failure; None before the first.
    """

    attempts: int
    last: FleetError | None = None
    _failed_at: dict[str, tuple[str, int]] = dataclasses.field(
        default_factory=dict[str, tuple[str, int]]
    )
    _failures: int = 0
    _moves: int = 0

    def note(
        self,
        instance_id: str,
        report: tuple[str, int],
        error: FleetError,
        *,
        made_tokens: bool = False,
    ) -> None:
        """Records a failed attempt.

        Args:
            instance_id: where it failed.
            report: what was the last report of that instance then (`InstanceCandidate.report`).
            error: why it failed.
            made_tokens: some tokens of the answer came from there, and are kept.
        """
        if made_tokens and error.reason in _WENT:
            self._failures = self._moves = 0
        elif error.reason in _TOLD_TO_GO:
            self._moves += 1
        else:
            self._failures += 1
        self.last = error
        self._failed_at[instance_id] = report

    def may_go_on(self, error: FleetError) -> bool:
        """True if another instance may be tried after this error: rules 2 and 3."""
        spent = self._failures + self._moves / _MOVES_PER_ATTEMPT
        return error.reason.row.retry is Retry.ELSEWHERE and spent < self.attempts

    def excluded(self, candidates: tuple[InstanceCandidate, ...]) -> set[str]:
        """Ids of the instances that must not be chosen now: rule 4.

        Args:
            candidates: the instances of the model as they are known now.
        """
        if not self._failed_at:
            return set()
        back = {
            candidate.instance_id
            for candidate in candidates
            if self.model_was_lost
            and self._failed_at.get(candidate.instance_id) not in {None, candidate.report}
        }
        return self._failed_at.keys() - back

    @property
    def model_was_lost(self) -> bool:
        """The last attempt failed because its instance was lost, or is about to go."""
        return self.last is not None and self.last.reason in _LOST

    @property
    def failed_instances(self) -> list[str]:
        """Ids of all instances that have failed this request, in no order."""
        return list(self._failed_at)


class ServedBy:
    """Where a request ran, for its log line and its trace.

    Attributes:
        attempts: how many instances it was sent to.
        last: the last of them; None before the first.
        trace: of the request.
        hops: how many gateways have sent it on to an upstream before this one.
        upstream: name of the other server that it was sent to last; empty: to an instance.
    """

    __slots__ = ("attempts", "hops", "last", "trace", "upstream")

    def __init__(self, trace: RequestTrace = UNTRACED) -> None:
        self.attempts = 0
        self.last: InstanceCandidate | None = None
        self.trace = trace
        self.hops = 0
        self.upstream = ""

    def attempt_upstream(self, name: str, model: str) -> Hop:
        """Counts an attempt that begins at another server; it lasts as long as the context is open.

        Args:
            name: of the server.
            model: as it is counted.
        """
        self.attempts += 1
        self.upstream = name
        self.last = InstanceCandidate("", model, "", "", Availability.SERVING)
        number = self.attempts
        return self.trace.hop(
            "upstream",
            lambda: {
                REQUEST_MODEL: model,
                "cortex.upstream": name,
                "cortex.attempt": number,
            },
        )

    def attempt(self, target: InstanceCandidate, method: str) -> Hop:
        """Counts an attempt that begins at `target`; it lasts as long as the context is open.

        Args:
            target: where.
            method: name of the neuron's method.
        """
        self.attempts += 1
        self.last = target
        self.upstream = ""
        number = self.attempts
        return self.trace.hop(
            f"/cortex.v1.NeuronService/{method}",
            lambda: {
                REQUEST_MODEL: target.model,
                "server.address": target.address,
                "cortex.neuron": target.neuron,
                "cortex.instance_id": target.instance_id,
                "cortex.attempt": number,
            },
        )
