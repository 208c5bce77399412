"""Which settings a running gateway takes in when they are read again."""

from __future__ import annotations

from collections.abc import Callable

from services.backplane.logs import LogSettings
from services.backplane.process.reload import SettingsReload
from services.backplane.security.audit import AuditLog, AuditSettings
from services.backplane.settings import Document
from services.gateway.api.cors import Origins
from services.gateway.auth.auth import Auth
from services.gateway.routing.upstreams.upstreams import Upstreams
from services.gateway.settings import read


def settings_reload(
    document: Document,
    *,
    origins: Origins,
    auth: Auth,
    upstreams: Upstreams,
    audit_log: AuditLog,
    use_log: Callable[[LogSettings], None],
    use_certificate: Callable[[], None],
) -> SettingsReload:
    """Keys, limits, origins, upstreams, levels and certificates: all else needs a restart.

    Args:
        document: what the gateway runs with.
        origins: of the pages that may ask.
        auth: checks keys.
        upstreams: other servers that answer requests.
        audit_log: of operations.
        use_log: logs by other settings.
        use_certificate: reads the HTTP server's certificate again.
    """
    return SettingsReload(
        document,
        sections=("gateway", "auth", "fleet", "log", "audit", "telemetry"),
        check=lambda fresh: upstreams.check(read(fresh)[0].upstreams),
        live={
            "gateway.cors_origins": lambda fresh: origins.use(read(fresh)[0].cors_origins),
            "gateway.upstreams": lambda fresh: upstreams.use(read(fresh)[0].upstreams),
            "auth": lambda fresh: auth.use(read(fresh)[1]),
            "log": lambda fresh: use_log(fresh.section("log", LogSettings)),
            "audit": lambda fresh: audit_log.use(fresh.section("audit", AuditSettings)),
        },
        always=(use_certificate, upstreams.read_keys),
    )
