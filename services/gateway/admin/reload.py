"""`POST /admin/reload`: the gateway reads its settings again, as at SIGHUP."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from starlette.routing import Route

from services.backplane.errors import FleetError, Reason
from services.backplane.process.reload import Reloaded
from services.gateway.api.operators.call import OperatorCall
from services.gateway.api.operators.endpoint import Bodies, OperatorEndpoints
from services.gateway.auth.holder import ConsoleLevel


class ReloadAnswer(msgspec.Struct):
    """The fields of the answer: names of settings."""

    changed: list[str]
    needs_restart: list[str]


class GatewayReload:
    """The endpoint `POST /admin/reload`.

    Args:
        reload: reads the settings again. Of several workers each has its keeper do it for all, and
            says nothing of what came of it: their logs do.
    """

    def __init__(self, reload: Callable[[], Reloaded]) -> None:
        self._reload = reload

    def routes(self, endpoints: OperatorEndpoints) -> Sequence[Route]:
        """The route of `/admin/reload`."""
        bodies = Bodies(answers=ReloadAnswer)
        made = endpoints.endpoint(
            ConsoleLevel.ADMIN, self._serve, operation="gateway.reload", bodies=bodies
        )
        return [Route("/admin/reload", made, methods=["POST"])]

    async def _serve(self, call: OperatorCall) -> None:
        told = self._reload()
        if told.refused:
            raise FleetError(Reason.BAD_REQUEST, told.refused)
        call.answer({"changed": told.changed, "needs_restart": told.needs_restart})
