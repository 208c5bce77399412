"""Which leadership of the registry this neuron obeys: the newest that it has heard of."""

from __future__ import annotations

from services.backplane.errors import FleetError, Reason


class LeaderEpoch:
    """The newest epoch, from whoever told it.

    A registry that was frozen while another took over may wake up with orders half sent. Its epoch
    is older than its successor's, and so nobody obeys it.
    """

    def __init__(self) -> None:
        self._newest = 0

    def admit(self, epoch: int) -> None:
        """Takes note of an epoch; 0 is of nobody who could be deposed.

        Raises:
            FleetError: NOT_LEADER, it is over.
        """
        if 0 < epoch < self._newest:
            raise FleetError(
                Reason.NOT_LEADER,
                f"Epoch {epoch} of the registry is over; {self._newest} has begun.",
                retry_after_seconds=1.0,
            )
        self._newest = max(self._newest, epoch)
