"""The neuron that an operator names."""

from __future__ import annotations

from services.backplane.errors import FleetError, Reason
from services.registry.fleet.records import Member
from services.registry.term import LeaderTerm


def member_named(term: LeaderTerm, name: str) -> Member:
    """The member that an operator names; an error lists those there are.

    Raises:
        FleetError: NOT_FOUND: nobody of that name is attached.
    """
    member = term.control.fleet_state.fleet.members.get(name)
    if member is None:
        known = ", ".join(sorted(term.control.fleet_state.fleet.members)) or "none"
        message = f"No neuron is called {name!r} (attached: {known})."
        raise FleetError(Reason.NOT_FOUND, message, field="neuron")
    return member
