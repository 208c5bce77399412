"""Who may call what on one server: asked at every call, and while a stream goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import grpc
from typing_extensions import override

from services.backplane.address import Address
from services.backplane.errors import FleetError, Reason
from services.backplane.security.certificates import peer_in
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Peer, Role, require_role

# What anyone with a certificate of the fleet may ask: whether it lives, and what there is to call.
_FOR_EVERY_PEER: Final = ("/grpc.health.v1.Health/", "/grpc.reflection.")


class Access:
    """Who may call what on one server.

    Args:
        credentials: the fleet's; None lets everybody call everything.
        allowed: roles by method, `/package.Service/Method`.
    """

    def __init__(
        self,
        credentials: FleetCredentials | None = None,
        allowed: Mapping[str, frozenset[Role]] | None = None,
    ) -> None:
        self._credentials = credentials
        self._allowed = allowed or {}

    def to_serve(self, listen: Address) -> grpc.ServerCredentials | None:
        """The TLS credentials of a server that listens at this address.

        Called once, before serving: on a Unix socket, which the file system guards, nobody is asked
        who he is from then on.

        Returns: None for plain text: without credentials, or on a Unix socket.
        """
        if listen.is_unix:
            self._credentials = None
        return None if self._credentials is None else self._credentials.for_server()

    def peer(self, context: Any) -> Peer | None:
        """Who is at the other end of a call; None where nobody is asked.

        Args:
            context: of the call, as gRPC hands it to a servicer.

        Raises:
            FleetError: FORBIDDEN: its certificate was revoked.
        """
        peer = self.shown(context)
        self.recheck(peer)
        return peer

    def shown(self, context: Any) -> Peer | None:
        """The caller by its certificate, let in or not, for the audit log; None if it has none."""
        if self._credentials is None:
            return None
        chain = context.auth_context().get("x509_pem_cert", [b""])
        return peer_in(bytes(chain[0]))

    def admit(self, method: str, context: Any) -> Peer | None:
        """Checks that the caller may call the method; returns who it is, as `peer` does.

        Raises:
            FleetError: FORBIDDEN: it may not, or its certificate was revoked.
        """
        peer = self.peer(context)
        if peer is not None:
            require_role(peer, method, self._allowed, open_to_all=_FOR_EVERY_PEER)
        return peer

    def recheck(self, peer: Peer | None) -> None:
        """Ends a call that goes on after its caller's certificate was revoked.

        Raises:
            FleetError: FORBIDDEN: it was.
        """
        if peer is None or self._credentials is None:
            return
        if peer.serial in self._credentials.revoked:
            raise FleetError(Reason.FORBIDDEN, "This certificate was revoked.")


class StrangersAccess(Access):
    """For those who have no certificate yet: they are shown one, and asked for none.

    Args:
        credentials: whose certificate is shown.
        methods: all that they may call, `/package.Service/Method`.
    """

    def __init__(self, credentials: FleetCredentials, methods: Collection[str]) -> None:
        super().__init__()
        self._shown = credentials
        self._methods = frozenset(methods)

    @override
    def to_serve(self, listen: Address) -> grpc.ServerCredentials | None:
        return self._shown.for_server(asks=False)

    @override
    def admit(self, method: str, context: Any) -> Peer | None:
        if method not in self._methods:
            message = f"{method.rpartition('/')[2]} is not for those without a certificate."
            raise FleetError(Reason.FORBIDDEN, message)
        return None


OPEN_TO_ALL: Final = Access()
"""Nobody is asked who he is."""
