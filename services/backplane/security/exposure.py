"""Addresses that other machines reach are served only with credentials, or on somebody's word."""

from __future__ import annotations

import ipaddress
from typing import Final

from services.backplane.address import Address
from services.backplane.settings import Document, SettingsError

CREDENTIALS_REMEDY: Final = (
    "Add `ca`, `certificate` and `key` to [fleet] (`cortex pki` makes them, docs/security.md)"
)
_LOCAL_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def is_loopback(address: Address) -> bool:
    """Whether only this machine reaches it; a name counts only where it says so itself."""
    if address.is_unix or address.host.lower() in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def refuse_exposed(
    document: Document, section: str, address: Address, *, is_meant: bool, remedy: str
) -> None:
    """Refuses to listen where strangers are let in, unless that is meant.

    Args:
        document: all settings; says where the address is from.
        section: the service's own, with the keys `listen` and `insecure`.
        address: what it is about to listen on.
        is_meant: those who come in are asked for credentials, or the settings say `insecure`.
        remedy: the lines to add, in words.

    Raises:
        SettingsError: nobody would be asked, and the settings do not say that this is meant.
    """
    if is_meant or is_loopback(address):
        return
    raise SettingsError(
        f"{document.place(f'{section}.listen')} = {str(address)!r}: other machines reach this"
        f" address, and nobody who comes in is asked who he is. {remedy}; or say"
        f" `insecure = true` in [{section}] where the network itself keeps strangers out."
    )
