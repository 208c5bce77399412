"""What a failed attempt means for the next one. Pure."""

from __future__ import annotations

import dataclasses

from services.backplane.errors import FleetError, Reason, Retry
from services.gateway.routing.choose import InstanceCandidate

# The model is as good as gone where it was: placing it anew is the way on. All other failures
# that another instance might not share are told to the client when there is no other instance.
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


@dataclasses.dataclass(slots=True)
class RetryState:
    """What went wrong with one request so far.

    Attributes:
        attempts_left: how many more instances may be tried.
        last: the last failure.
    """

    attempts_left: int
    last: FleetError | None = None
    _failed_at: dict[str, tuple[str, int]] = dataclasses.field(
        default_factory=dict[str, tuple[str, int]]
    )

    def note(self, instance_id: str, report: tuple[str, int], error: FleetError) -> None:
        """Takes a failed attempt into account."""
        self.attempts_left -= 1
        self.last = error
        self._failed_at[instance_id] = report

    def may_go_on(self, error: FleetError) -> bool:
        """True if another attempt may end better."""
        return error.reason.row.retry is Retry.ELSEWHERE and self.attempts_left > 0

    def excluded(self, candidates: tuple[InstanceCandidate, ...]) -> set[str]:
        """Instances that have failed and of which nothing newer is known.

        A report after the failure that still says READY makes an instance eligible again, if
        what failed was its worker or its neuron; one that refused stays out.
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
        """The last failure was of the instance, not of the request or of its load."""
        return self.last is not None and self.last.reason in _LOST

    @property
    def failed_instances(self) -> list[str]:
        """Every instance that failed, in no order."""
        return list(self._failed_at)


class ServedBy:
    """Where a request ran, for its log line."""

    __slots__ = ("attempts", "last")

    def __init__(self) -> None:
        self.attempts = 0
        self.last: InstanceCandidate | None = None

    def attempt(self, target: InstanceCandidate) -> None:
        """One more attempt begins."""
        self.attempts += 1
        self.last = target
