"""`host:port` and `unix:` addresses, parsed once, and types of settings for them."""

from __future__ import annotations

import dataclasses
import socket
from typing import Annotated, Final

import msgspec

_LAST_PORT = 65_535
# The key by which a field's JSON Schema says that its text is an address.
ADDRESS_KEY: Final = "x-address"
ADDRESS_NEEDED: Final = "needed"
ADDRESS_OR_EMPTY: Final = "or empty"
# Checked where settings are read, so that a mistake names its file and key.
AddressText = Annotated[str, msgspec.Meta(extra_json_schema={ADDRESS_KEY: ADDRESS_NEEDED})]
OptionalAddressText = Annotated[
    str, msgspec.Meta(extra_json_schema={ADDRESS_KEY: ADDRESS_OR_EMPTY})
]


class BadAddressError(ValueError):
    """An address that cannot be read; the message says what is wrong with it."""


class PortTakenError(Exception):
    """The address cannot be listened on; the message says which and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where something listens.

    Attributes:
        host: name or IP address without brackets; a path for a Unix socket.
        port: TCP port; 0 asks the system for one; None for a Unix socket.
    """

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads `host:port`, `[v6]:port`, `http://host:port` or `unix:/path`.

        Raises:
            BadAddressError: it is none of these.
        """
        if text.startswith("unix:"):
            return cls(text.removeprefix("unix:"), None)
        plain = text.removeprefix("http://").removeprefix("https://").rstrip("/")
        host, colon, port = plain.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host:
            raise BadAddressError(f"{text!r} is not host:port")
        if not port.isascii() or not port.isdigit() or int(port) > _LAST_PORT:
            raise BadAddressError(f"{text!r}: {port!r} is not a port (0 to {_LAST_PORT})")
        return cls(host, int(port))

    @property
    def is_unix(self) -> bool:
        """True for a Unix socket."""
        return self.port is None

    @property
    def is_wildcard(self) -> bool:
        """True if it means every interface and so cannot be dialled."""
        return self.host in {"0.0.0.0", "::", "*"}

    def dialled_as(self, host: str) -> Address:
        """The same port on a host that others can reach."""
        return dataclasses.replace(self, host=host) if self.is_wildcard else self

    def __str__(self) -> str:
        if self.port is None:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def own_host_name() -> str:
    """This machine's name as others are likely to resolve it."""
    return socket.getfqdn() or socket.gethostname()
