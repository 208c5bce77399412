"""Which roles may call which methods of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cortex.v1 import (
    accounting_service_pb2,
    join_service_pb2,
    key_service_pb2,
    operator_service_pb2,
    storage_service_pb2,
)
from services.backplane.security.roles import Role

_REGISTRY: Final = "/cortex.v1.RegistryService"
_JOIN: Final = join_service_pb2.DESCRIPTOR.services_by_name["JoinService"]
# They show and change nothing; a gateway's console tells by them what waits for what, and why.
_LOOKS: Final = frozenset({"GetFleet", "ExplainPlacement"})
_KEYS: Final = key_service_pb2.DESCRIPTOR.services_by_name["KeyService"]
# Digests of secrets are for those who compare them.
_GATEWAYS: Final = frozenset({"WatchKeys", "ReportKeyUse"})
_ACCOUNTING: Final = accounting_service_pb2.DESCRIPTOR.services_by_name["AccountingService"]
_STORAGE: Final = storage_service_pb2.DESCRIPTOR.services_by_name["FleetStorageService"]
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
    **{
        f"/{_KEYS.full_name}/{method.name}": frozenset(
            {Role.GATEWAY} if method.name in _GATEWAYS else {Role.OPERATOR}
        )
        for method in _KEYS.methods
    },
    f"/{_ACCOUNTING.full_name}/LeaseAllowances": frozenset({Role.GATEWAY}),
    f"/{_ACCOUNTING.full_name}/ReportUsage": frozenset({Role.GATEWAY}),
    f"/{_ACCOUNTING.full_name}/GetUsage": frozenset({Role.GATEWAY, Role.OPERATOR}),
    **dict.fromkeys(
        [f"/{_STORAGE.full_name}/{method.name}" for method in _STORAGE.methods],
        frozenset({Role.OPERATOR}),
    ),
}

OPERATIONS: Final[Mapping[str, str]] = {
    **{
        f"/{_OPERATOR.full_name}/{method}": operation
        for method, operation in {
            "LoadModel": "model.load",
            "UnloadModel": "model.unload",
            "PinModel": "model.pin",
            "UnpinModel": "model.unpin",
            "CordonNeuron": "neuron.cordon",
            "UncordonNeuron": "neuron.uncordon",
            "DrainNeuron": "neuron.drain",
            "ReloadCatalogue": "catalogue.reload",
            "CreateJoinToken": "neuron.token",
            "ApproveNeuron": "neuron.approve",
            "RevokeNeuron": "neuron.revoke",
        }.items()
    },
    **{
        f"/{_KEYS.full_name}/{method}": operation
        for method, operation in {
            "CreateKey": "key.create",
            "RotateKey": "key.rotate",
            "RevokeKey": "key.revoke",
            "PutKeyGroup": "group.put",
            "DeleteKeyGroup": "group.delete",
        }.items()
    },
    f"{_REGISTRY}/RenewCertificate": "neuron.renew",
    f"/{_JOIN.full_name}/Join": "neuron.join",
}
"""What the audit log tells of."""

STRANGERS_METHODS: Final = frozenset(
    f"/{_JOIN.full_name}/{method.name}" for method in _JOIN.methods
)
"""What those may call who have no certificate, on the port for joining."""
