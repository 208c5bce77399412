"""`/healthz` and `/readyz`: is the gateway alive, may it be sent requests."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from services.backplane.process.faults import Faults
from services.gateway.api.head import new_request_id
from services.gateway.auth.store_keys import StoreKeys
from services.gateway.routing.fleet_view import FleetView


class Readiness:
    """Whether the gateway should be sent new requests.

    Args:
        view: without a view of the fleet it should not.
        keys: nor before it was told who has a key: it might let in who has none.
        faults: nor once a task that it cannot do without has ended.
    """

    def __init__(self, view: FleetView, keys: StoreKeys, faults: Faults) -> None:
        self._view = view
        self._keys = keys
        self._faults = faults
        self._is_draining = False

    def drain(self) -> None:
        """Says no from now on: the gateway is shutting down."""
        self._is_draining = True

    def problem(self) -> str | None:
        """Why it should not, in a sentence; None where it should."""
        if self._faults.broken.is_set():
            return "The gateway has failed; its log says why."
        if self._is_draining:
            return "The gateway is shutting down."
        if not self._view.is_known:
            return "The fleet's registry has not been reached yet."
        if not self._keys.is_settled:
            return "The fleet's registry has not told of keys yet."
        return None


def routes(readiness: Readiness) -> list[Route]:
    """`/healthz` answers while the process lives; `/readyz` while it should get work.

    `/` is what clients of Ollama look at first to see whether anything is there; it leads a browser
    to the console.
    """

    async def root(request: Request) -> Response:
        headers = {"vary": "accept", **_ids()}
        if "text/html" in request.headers.get("accept", ""):  # a browser
            return RedirectResponse("ui/", status_code=302, headers=headers)
        return PlainTextResponse("Cortex is running", headers=headers)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_ids())

    async def readyz(_: Request) -> Response:
        problem = readiness.problem()
        if problem is None:
            return JSONResponse({"status": "ready"}, headers=_ids())
        return JSONResponse(
            {"status": "not ready", "reason": problem},
            status_code=503,
            headers={"retry-after": "2", **_ids()},
        )

    return [
        Route("/", root, methods=["GET", "HEAD"]),
        Route("/healthz", healthz, methods=["GET", "HEAD"]),
        # what load generators ask before they begin
        Route("/health", healthz, methods=["GET", "HEAD"]),
        Route("/readyz", readyz, methods=["GET", "HEAD"]),
    ]


def _ids() -> dict[str, str]:
    name = new_request_id()
    return {"x-request-id": name, "request-id": name}
