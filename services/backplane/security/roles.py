"""Who a peer is, by the names in its certificate, and which roles may call which methods.

A certificate names what its holder is: `registry.cortex.internal`, `gateway.cortex.internal`,
`operator.cortex.internal`, and for a neuron both `neuron.cortex.internal` and
`NAME.neuron.cortex.internal`. One certificate may hold several roles. The names are no addresses:
nobody resolves them, so that a host may move without a new certificate.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable, Mapping
from typing import Final

from services.backplane.errors import FleetError, Reason

_SUFFIX: Final = ".cortex.internal"
# What a DNS name in a certificate may hold; case is not told apart there.
_NEURON_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9._-]{0,126}[a-z0-9_])?")


class Role(enum.Enum):
    """What a part of the fleet, or a person, is."""

    REGISTRY = "registry"
    GATEWAY = "gateway"
    NEURON = "neuron"
    OPERATOR = "operator"

    @property
    def server_name(self) -> str:
        """The name that a certificate of this role has."""
        return f"{self.value}{_SUFFIX}"


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    Attributes:
        roles: what it is.
        neurons: the neurons for which it may speak, in lower case.
        serial: of its certificate, in hex.
    """

    roles: frozenset[Role]
    neurons: frozenset[str] = frozenset()
    serial: str = ""

    def require_neuron(self, name: str) -> None:
        """Checks that it may speak for a neuron.

        Raises:
            FleetError: FORBIDDEN: its certificate is for another one.
        """
        if name not in self.neurons:  # exactly: "A" and "a" would be two members
            held = ", ".join(sorted(self.neurons)) or "none"
            raise FleetError(
                Reason.FORBIDDEN,
                f"This certificate is not for the neuron {name!r} (it is for: {held}).",
                field="hello.name",
            )


def names_of(role: Role, *, neuron: str = "") -> tuple[str, ...]:
    """The names that a certificate needs for a role.

    Args:
        role: what its holder is.
        neuron: the neuron's name, where the role is that of a neuron.

    Raises:
        ValueError: a neuron's name is missing, or cannot stand in a certificate.
    """
    if role is not Role.NEURON:
        return (role.server_name,)
    if not _NEURON_NAME.fullmatch(neuron):
        raise ValueError(
            f"{neuron!r} cannot stand in a certificate: lower-case letters, digits, '.', '_' and"
            " '-' can"
        )
    return (role.server_name, server_name(role, neuron=neuron))


def server_name(role: Role, *, neuron: str = "") -> str:
    """The name that a server's certificate must have: its role's, or that of one neuron alone."""
    return f"{neuron.lower()}.{role.server_name}" if neuron else role.server_name


def peer_of(names: Iterable[str], serial: str = "") -> Peer:
    """Reads the names of a certificate; those that are none of ours say nothing."""
    roles: set[Role] = set()
    neurons: set[str] = set()
    by_name = {role.server_name: role for role in Role}
    for name in names:
        lower = name.lower()
        if lower in by_name:
            roles.add(by_name[lower])
        elif lower.endswith(f".{Role.NEURON.server_name}"):
            neurons.add(lower.removesuffix(f".{Role.NEURON.server_name}"))
    return Peer(frozenset(roles), frozenset(neurons), serial)


def require_role(
    peer: Peer, method: str, allowed: Mapping[str, frozenset[Role]], *, open_to_all: Iterable[str]
) -> None:
    """Checks that a peer may call a method.

    Args:
        peer: who calls.
        method: `/package.Service/Method`.
        allowed: roles by method. A method that is not named is nobody's.
        open_to_all: beginnings of methods that anyone with a certificate of the fleet may call.

    Raises:
        FleetError: FORBIDDEN: it may not; the message says who may.
    """
    if method.startswith(tuple(open_to_all)):
        return
    roles = allowed.get(method, frozenset())
    if not peer.roles & roles:
        may = " or ".join(sorted(role.value for role in roles)) or "nobody"
        held = ", ".join(sorted(role.value for role in peer.roles)) or "none"
        raise FleetError(
            Reason.FORBIDDEN,
            f"{method.rpartition('/')[2]} is for {may}; this certificate's roles are: {held}.",
        )
