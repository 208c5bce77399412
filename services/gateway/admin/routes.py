"""Every route below `/admin`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.routing import Route

from services.backplane.process.reload import Reloaded
from services.gateway.admin.key_admin import KeyAdmin
from services.gateway.admin.reload import GatewayReload
from services.gateway.admin.usage_admin import UsageAdmin
from services.gateway.api.operators.endpoint import OperatorEndpoints
from services.gateway.api.operators.registry_operator import RegistryOperator
from services.gateway.auth.auth import Auth


def routes(
    endpoints: OperatorEndpoints,
    operator: RegistryOperator,
    auth: Auth,
    reload: Callable[[], Reloaded],
) -> Sequence[Route]:
    """Keys and groups, usage, and the reload of the gateway.

    Args:
        endpoints: lets visitors in, and makes the routes' endpoints.
        operator: asks the registry.
        auth: knows the keys of the settings.
        reload: reads the gateway's settings again.
    """
    return [
        *KeyAdmin(operator, auth).routes(endpoints),
        *UsageAdmin(operator).routes(endpoints),
        *GatewayReload(reload).routes(endpoints),
    ]
