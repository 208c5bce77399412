"""Which leadership of the registry this neuron obeys: the newest that it has heard of."""

from __future__ import annotations

from services.backplane.errors import FleetError, Reason


class LeaderEpoch:
    """The newest epoch (number of a leadership) that any registry has named to this neuron.

    A registry that was frozen while another took over may wake up with orders half sent. Its epoch
    is older than its successor's, and so nobody obeys it.
    """

    def __init__(self) -> None:
        self._newest = 0

    def admit(self, epoch: int) -> None:
        """Accepts an order's epoch or refuses an old one; 0 names no leader and is accepted.

        Raises:
            FleetError: NOT_LEADER, a newer leader has been heard of.
        """
        if 0 < epoch < self._newest:
            raise FleetError(
                Reason.NOT_LEADER,
                f"Epoch {epoch} of the registry is over; {self._newest} has begun.",
                retry_after_seconds=1.0,
            )
        self._newest = max(self._newest, epoch)
