"""Which roles may call which methods of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cortex.v1 import join_service_pb2, operator_service_pb2
from services.backplane.security.roles import Role

_REGISTRY: Final = "/cortex.v1.RegistryService"
_JOIN: Final = join_service_pb2.DESCRIPTOR.services_by_name["JoinService"]
# They show and change nothing; a gateway's console tells by them what waits for what, and why.
_LOOKS: Final = frozenset({"GetFleet", "ExplainPlacement"})
_OPERATOR: Final = operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"]

METHODS: Final[Mapping[str, frozenset[Role]]] = {
    f"{_REGISTRY}/Attach": frozenset({Role.NEURON}),
    f"{_REGISTRY}/WatchFleet": frozenset({Role.GATEWAY, Role.OPERATOR}),
    f"{_REGISTRY}/EnsureModel": frozenset({Role.GATEWAY, Role.OPERATOR}),
    f"{_REGISTRY}/RenewCertificate": frozenset({Role.NEURON}),
    **{
        f"/{_OPERATOR.full_name}/{method.name}": frozenset(
            {Role.OPERATOR, Role.GATEWAY} if method.name in _LOOKS else {Role.OPERATOR}
        )
        for method in _OPERATOR.methods
    },
}

STRANGERS_METHODS: Final = frozenset(
    f"/{_JOIN.full_name}/{method.name}" for method in _JOIN.methods
)
"""What those may call who have no certificate, on the port for joining."""
