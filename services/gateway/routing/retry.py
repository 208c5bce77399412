"""Whether a failed request is tried again, and where. Pure: values in, values out."""

from __future__ import annotations

import dataclasses

from services.backplane.errors import FleetError, Reason, Retry
from services.gateway.routing.choose import InstanceCandidate

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


# The instance was told to go, and ended what ran there.
_TOLD_TO_GO = frozenset({Reason.INSTANCE_GONE, Reason.INSTANCE_DRAINING, Reason.SHUTTING_DOWN})


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
    3. At most `gateway.attempts` instances are tried (`may_go_on`). One that was told to go and
       ended the answer after some tokens of it does not count, so that a long answer outlives any
       number of drains.
    4. An instance that has failed is not tried again (`excluded`), unless its worker or neuron was
       lost and a later report says that it serves.
    5. Where no loaded instance is left, the model is placed anew if the last failure was the loss
       of an instance (`model_was_lost`); any other failure is the answer to the client.

    Attributes:
        attempts_left: how many more instances may be tried.
        last: the last failure; None before the first.
    """

    attempts_left: int
    last: FleetError | None = None
    _failed_at: dict[str, tuple[str, int]] = dataclasses.field(
        default_factory=dict[str, tuple[str, int]]
    )

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
        if not (made_tokens and error.reason in _TOLD_TO_GO):
            self.attempts_left -= 1
        self.last = error
        self._failed_at[instance_id] = report

    def may_go_on(self, error: FleetError) -> bool:
        """True if another instance may be tried after this error: rules 2 and 3."""
        return error.reason.row.retry is Retry.ELSEWHERE and self.attempts_left > 0

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
    """Where a request ran, for its log line.

    Attributes:
        attempts: how many instances it was sent to.
        last: the last of them; None before the first.
    """

    __slots__ = ("attempts", "last")

    def __init__(self) -> None:
        self.attempts = 0
        self.last: InstanceCandidate | None = None

    def attempt(self, target: InstanceCandidate) -> None:
        """Counts an attempt that begins at `target`."""
        self.attempts += 1
        self.last = target
