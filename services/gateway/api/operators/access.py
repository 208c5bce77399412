"""Who may look at the console, and who may operate the fleet by it."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from typing import Final

from starlette.types import Scope

from services.backplane.errors import FleetError, Reason
from services.gateway.api.cross_site import CrossSiteCheck, host_name
from services.gateway.api.head import client_address
from services.gateway.auth.auth import Auth
from services.gateway.auth.holder import ANYBODY, ROLES, ConsoleLevel, KeyHolder

# By what a proxy says that the request is somebody else's.
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclasses.dataclass(frozen=True, slots=True)
class Visitor:
    """One who was let in.

    Attributes:
        principal: the name of his key; empty on a gateway without keys.
        level: what he may do.
        holder: of his key.
    """

    principal: str
    level: ConsoleLevel
    holder: KeyHolder = ANYBODY


class ConsoleAccess:
    """Lets visitors in.

    A key says by its `console` what its holder may. A gateway without keys is open, but its console
    only to its own machine.

    Args:
        auth: knows the keys.
        cross_site: refuses pages of other sites, whatever `gateway.cors_origins` allows elsewhere.
    """

    def __init__(self, auth: Auth, cross_site: CrossSiteCheck) -> None:
        self._auth = auth
        self._cross_site = cross_site

    async def prepare(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Reads a token that was not read before, unless a page of another site has sent it.

        Raises:
            FleetError: it is not accepted, or a page of another site has sent it.
        """
        self._cross_site.check_own(headers)
        await self._auth.prepare(headers, client_address(scope))

    def holder(self, scope: Scope, headers: Mapping[str, str]) -> KeyHolder | None:
        """The holder of the key in a request, whatever its roles; None without a valid key.

        Where there are no keys at all it is anybody on the gateway's own machine.
        """
        try:
            self._cross_site.check_own(headers)
            found = self._auth.console_visitor(headers, client_address(scope))
            if found is None:
                _require_own_machine(scope, headers)
        except FleetError:
            return None
        return found or ANYBODY

    def visitor(self, scope: Scope, headers: Mapping[str, str], needs: ConsoleLevel) -> Visitor:
        """Decides who has made a request to `/ui` or `/admin`, and what that visitor may do.

        Args:
            scope: of the request.
            headers: of the request.
            needs: what he wants to do.

        Raises:
            FleetError: FORBIDDEN: a page of another site has made it, it comes from elsewhere and
                there are no keys, or the key's `console` is not enough; UNAUTHENTICATED: a key is
                needed, and none or an unknown one was sent.
        """
        self._cross_site.check_own(headers)
        found = self._auth.console_visitor(headers, client_address(scope))
        if found is None:
            _require_own_machine(scope, headers)
            return Visitor("", ConsoleLevel.ADMIN)
        if found.console < needs:
            raise _too_low(found, needs)
        return Visitor(found.principal, found.console, found)


def _too_low(holder: KeyHolder, needs: ConsoleLevel) -> FleetError:
    if holder.source == "static":
        told = (
            f'The key of {holder.principal!r} has console = "{holder.console.word}" in'
            f' [[auth.keys]]; this needs "{needs.word}".'
        )
    elif not holder.scopes.are_open:
        told = "The console shows the whole fleet, and this key is for a part of it."
    else:
        told = f"This key's roles do not include `{ROLES[needs]}`."
    return FleetError(Reason.FORBIDDEN, told)


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
