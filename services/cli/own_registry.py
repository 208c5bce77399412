"""Whether addresses of registries name the one that listens in this process's own settings."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from services.backplane.address import Address


def names_own_registry(listen: Address, named: Iterable[str]) -> bool:
    """Whether one of the addresses reaches what listens here.

    Args:
        listen: where this machine's registry listens.
        named: addresses as settings name them.
    """
    return any(_reaches(Address.parse(text), listen) for text in named)


def is_this_machine(host: str) -> bool:
    """Whether a name or an IP address is one of this machine; False where nobody knows the name."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_is_own(family, address) for family, _, _, _, address in found)


def _reaches(named: Address, listen: Address) -> bool:
    if named == listen:
        return True
    if named.is_unix or listen.is_unix or named.port != listen.port:
        return False
    if named.is_wildcard or listen.is_wildcard:
        return named.is_wildcard or is_this_machine(named.host)
    return bool(_addresses(named.host) & _addresses(listen.host))


def _addresses(host: str) -> set[str]:
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(address[0]) for *_, address in found}


def _is_own(family: int, address: tuple[str | int, ...] | tuple[int, bytes]) -> bool:
    """The system lets a socket be bound to the machine's own addresses only."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(address)
        except OSError:
            return False
    return True
