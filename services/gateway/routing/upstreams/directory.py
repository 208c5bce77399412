"""Which models other servers answer for, by the names of clients and of the fleet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.lookup import ListedModel
from services.gateway.routing.fleet_view import FleetView
from services.gateway.routing.retry import ServedBy
from services.gateway.routing.upstreams.upstreams import Upstreams
from services.gateway.telemetry.outcome import UNKNOWN_MODEL
from services.gateway.transports.upstream.hops import MOST

_AWAY: Final = "The model {!r} is answered by another server alone, which cannot be asked {}."


class UpstreamDirectory:
    """Looks models up among those of the fleet and those of the upstreams.

    Args:
        upstreams: the other servers.
        view: what is known of the fleet.

    Attributes:
        upstreams: the other servers.
    """

    def __init__(self, upstreams: Upstreams, view: FleetView) -> None:
        self.upstreams = upstreams
        self._view = view

    def model_named(self, name: str) -> str | None:
        """The own name of the model behind a name or alias; None where nobody knows it."""
        return self._view.model_named(name) or (name if self.upstreams.have(name) else None)

    def counted_as(self, model: str) -> str:
        """By which name a model is counted: those that clients make up are one."""
        return self.model_named(model) or UNKNOWN_MODEL

    def take(self, name: str) -> bool:
        """Whether some upstream answers for a model or an alias, known or not."""
        return bool(self._model_there(name))

    def model_there(self, name: str, record: ServedBy) -> str:
        """By which name upstreams are asked for a model or an alias; empty where none is.

        Args:
            name: as the client says it.
            record: of the request: one that several gateways have sent on goes no further.
        """
        return self._model_there(name) if record.hops < MOST else ""

    def with_theirs(self, models: Sequence[ListedModel]) -> Sequence[ListedModel]:
        """A list of the fleet's models with those of the upstreams."""
        return self.upstreams.with_theirs(models)

    def is_elsewhere(self, name: str) -> bool:
        """Whether upstreams alone answer for a model; not while the fleet is not known yet."""
        model = self._model_there(name)
        is_unknown = self._view.is_complete and not self._view.model_named(name)
        return bool(model) and (self.upstreams.is_never_here(model) or is_unknown)

    def refuse_elsewhere(self, name: str, what: str) -> None:
        """Refuses what upstreams cannot be asked, for a model that they alone answer for.

        Args:
            name: model or alias.
            what: in words: `to count tokens`.

        Raises:
            FleetError: NOT_SUPPORTED.
        """
        if self.is_elsewhere(name):
            raise FleetError(Reason.NOT_SUPPORTED, _AWAY.format(name, what), field="model")

    def _model_there(self, name: str) -> str:
        if self.upstreams.are_none:
            return ""
        if self.upstreams.have(name):
            return name
        model = self._view.model_named(name) or name
        return model if self.upstreams.serving(model) else ""
