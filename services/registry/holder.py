"""Whether this registry leads, for those who are asked things that only the leader answers."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from services.backplane.errors import FleetError, Reason


class Leading(Protocol):
    """A leadership under way, as far as its holder has to know it."""

    @property
    def leads(self) -> bool:
        """False where another registry may have taken over unseen."""
        ...


TermT = TypeVar("TermT", bound=Leading)


class LeaderHolder(Generic[TermT]):
    """Says whether this registry leads; the election sets it, and the servicers ask.

    Attributes:
        leader_address: where the registry that leads is reached; empty where that is not known.
    """

    def __init__(self) -> None:
        self._term: TermT | None = None
        self.leader_address = ""

    @property
    def term(self) -> TermT | None:
        """The term while this registry leads; None while it stands by."""
        return self._term

    def take(self, term: TermT | None, leader_address: str = "") -> None:
        """Begins or ends a term, or names another leader."""
        self._term, self.leader_address = term, leader_address

    def leading_term(self) -> TermT:
        """The term under way.

        Raises:
            FleetError: NOT_LEADER, with the leader's address among its facts where it is known.
        """
        if self._term is not None and not self._term.leads:
            message = "This registry does not know any more whether it leads."
            raise FleetError(Reason.NOT_LEADER, message, retry_after_seconds=1.0)
        if self._term is None:
            where = self.leader_address
            message = f"Another registry leads: {where}." if where else "No registry leads yet."
            facts = {"leader_address": where} if where else {}
            raise FleetError(Reason.NOT_LEADER, message, retry_after_seconds=1.0, facts=facts)
        return self._term
