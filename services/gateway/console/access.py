"""Who may look at the console, and who may operate the fleet by it."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from typing import Final

from starlette.types import Scope

from services.backplane.errors import FleetError, Reason
from services.gateway.api.auth import Auth, ConsoleLevel
from services.gateway.api.doors import Doors, host_name

# By what a proxy says that the request is somebody else's.
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclasses.dataclass(frozen=True, slots=True)
class Visitor:
    """One who was let in.

    Attributes:
        principal: the name of his key; empty on a gateway without keys.
        level: what he may do.
    """

    principal: str
    level: ConsoleLevel


class ConsoleAccess:
    """Lets visitors in.

    A key says by its `console` what its holder may. A gateway without keys is open, but its console
    only to its own machine.

    Args:
        auth: knows the keys.
        doors: refuses pages of other sites, whatever `gateway.cors_origins` allows elsewhere.
    """

    def __init__(self, auth: Auth, doors: Doors) -> None:
        self._auth = auth
        self._doors = doors

    def visitor(self, scope: Scope, headers: Mapping[str, str], needs: ConsoleLevel) -> Visitor:
        """Who has made a request.

        Args:
            scope: of the request.
            headers: of the request.
            needs: what he wants to do.

        Raises:
            FleetError: FORBIDDEN: a page of another site has made it, it comes from elsewhere and
                there are no keys, or the key's `console` is not enough; UNAUTHENTICATED: a key is
                needed, and none or an unknown one was sent.
        """
        self._doors.check_own(headers)
        found = self._auth.console_visitor(headers)
        if found is None:
            _require_own_machine(scope, headers)
            return Visitor("", ConsoleLevel.OPERATE)
        visitor = Visitor(*found)
        if visitor.level < needs:
            raise FleetError(
                Reason.FORBIDDEN,
                f'The key of {visitor.principal!r} has console = "{visitor.level.word}" in'
                f' [[auth.keys]]; this needs "{needs.word}".',
            )
        return visitor


def _require_own_machine(scope: Scope, headers: Mapping[str, str]) -> None:
    client = scope.get("client")  # None: a Unix socket, which the file system guards
    name = host_name(headers.get("host", ""))
    is_near = client is None or _is_loopback(client[0])
    if is_near and _is_loopback(name) and not any(one in headers for one in _FORWARDED):
        return
    raise FleetError(
        Reason.FORBIDDEN,
        "Without keys the console is served to its own machine alone; from elsewhere it needs a key"
        ' with console = "view" or "operate" in [[auth.keys]].',
    )


def _is_loopback(name: str) -> bool:
    if not name or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
