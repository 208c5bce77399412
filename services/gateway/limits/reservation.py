"""What one request has reserved, until it is known what it has used."""

from __future__ import annotations

import msgspec

from services.gateway.limits.account import Cost, OpenAllowances


class Reservation(msgspec.Struct, gc=False):
    """What is set aside of a principal's limits for one request; settled once, however it ends.

    Attributes:
        allowances: that it counts in: those of then, whatever windows are open later.
        cost: what was reserved in each of them; None once it is settled.
    """

    allowances: OpenAllowances
    cost: Cost | None

    def undo(self) -> None:
        """Takes it back: the request does not run."""
        cost = self.cost
        if cost is not None:
            self.settle(0, 0)
            for one in self.allowances.requests:
                one.used -= cost.requests

    @property
    def counts_devices(self) -> bool:
        """Whether it matters how long devices have worked for the request."""
        return bool(self.allowances.devices)

    def settle(self, tokens: int, device_milliseconds: int | None = None) -> None:
        """Replaces the reserved amounts by what was used; a second call does nothing.

        Args:
            tokens: of prompts and answers, as the neurons have counted them.
            device_milliseconds: as the neurons have measured it; None where none has told: the
                estimate stands in for it until it is known what neurons have measured.
        """
        cost, self.cost = self.cost, None
        if cost is None:
            return
        on_requests, on_tokens, on_streams, on_devices = self.allowances
        count = cost.requests
        for one in on_requests:
            one.reserved -= count
            one.used += count
        count, unstated = cost.tokens, cost.unstated_tokens
        for one in on_tokens:
            one.reserved -= (count + min(unstated, one.unstated_most)) if unstated else count
            one.used += tokens
        for one in on_streams:
            one.reserved -= cost.streams
        for one in on_devices:
            reserved = min(cost.device_milliseconds, one.unstated_most)
            used = reserved if device_milliseconds is None else device_milliseconds
            one.reserved += used - reserved
            one.ended += used
