"""The `[gateway]` and `[auth]` sections."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from services.backplane.address import Address, AddressText, OptionalAddressText
from services.backplane.security.exposure import is_loopback, refuse_exposed
from services.backplane.settings import Document, Secret, SettingsError
from services.backplane.units import IN_SECONDS, PositiveBytes, PositiveSeconds
from services.gateway.limits.settings import KeyLimits
from services.gateway.transports.upstream.settings import UpstreamSettings
from services.gateway.transports.upstream.settings import check as check_upstreams

Count = Annotated[int, msgspec.Meta(ge=1)]
# As browsers send it: scheme, host and port, and nothing behind them.
Origin = Annotated[str, msgspec.Meta(pattern=r"^(\*|null|[a-zA-Z][a-zA-Z0-9+.*-]*://[^/\s]+)$")]
# Whoever has it can try out the weak keys that it may be of.
Digest = Annotated[Secret, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")]


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[gateway.tls]`: files in PEM.

    Attributes:
        certificate: the chain.
        key: its private key.
        key_password: where the key has one.
        client_ca: where set, every client has to show a certificate of this CA.
    """

    certificate: str
    key: str
    key_password: Secret | None = None
    client_ca: str | None = None


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[gateway]`: where clients come in, and how long everything may take.

    Attributes:
        listen: where clients come in. An address that other machines reach needs keys in [auth].
        insecure: serve such an address to everybody, without keys.
        metrics_listen: where Prometheus comes in; empty for nowhere.
        vllm_metrics: tell there by the names of vLLM too what dashboards made for it read.
        registry: addresses of the registry and its stand-bys.
        workers: processes; each opens its own session to every neuron.
        http1_codec: `fast` is ours on httptools, `stock` is Hypercorn's own.
        transport: `session` batches all generations of a neuron on one stream, `generate` makes
            one call each, for neurons that know nothing else.
        max_body_bytes: largest request body, the stored conversation that it goes on from included.
        max_body_items: most entries of lists and fields of objects in a body, at any depth.
        bodies_bytes: most bytes of the bodies and WebSocket messages of all clients together, from
            their first byte until their requests are answered, with the stored conversations that
            they go on from; requests beyond it get 429.
        body_seconds: how long a body may take, besides what its size takes at the least rate.
        body_bytes_per_second: the least rate; a body or a WebSocket message that comes more slowly
            is ended with 408.
        connections_per_address: most open connections from one address, in each worker.
        keepalive_seconds: longest silence on a stream before a comment is sent.
        heartbeat_seconds: longest time without an event that clients parse.
        first_event_seconds: a neuron that says nothing for this long is given up; another is tried.
        idle_seconds: a generation without any event for this long is ended.
        placement_seconds: longest wait for a model to be placed, where its catalogue entry says
            nothing else.
        settle_seconds: after an instance failed, how long the fleet may take to say how it stands.
        attempts: most instances that one request is tried on.
        window_tokens: how far a neuron may run ahead of a reader.
        slow_reader_seconds: a client that reads nothing for this long is given up.
        slow_reader_bytes: likewise when this much waits for it.
        socket_idle_seconds: a WebSocket on which nothing runs or is asked for this long is closed.
        drain_seconds: how long running answers may go on after SIGTERM.
        handover_seconds: how long they may go on after SIGUSR2, when a successor has the new ones.
        cors_origins: sites whose pages may ask from a browser: `https://chat.example`, `*` for all,
            or with an asterisk inside, `http://localhost:*`. None unless set.
        allowed_hosts: names by which a gateway that listens on loopback may be called, besides
            localhost, addresses and its own host name: against pages whose name leads to this
            machine. `*` for all. On other addresses every name is served unless some are set here.
        limits_away_seconds: how long limits of keys are held to by this gateway alone while the
            registry, by which gateways share them, is away; then requests that have limits get 503.
        responses_file: where stored responses are kept; empty keeps them in memory.
        responses_kept: most of them; the oldest go first.
        responses_bytes: likewise, most bytes of their contents.
        upstreams: other servers with OpenAI's API that answer for some models.
        tls: unset serves plain HTTP.
    """

    listen: AddressText = "127.0.0.1:31313"
    insecure: bool = False
    metrics_listen: OptionalAddressText = "127.0.0.1:31314"
    vllm_metrics: bool = False
    registry: tuple[AddressText, ...] = ("127.0.0.1:31315",)
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    http1_codec: Literal["fast", "stock"] = "fast"
    transport: Literal["session", "generate"] = "session"
    max_body_bytes: PositiveBytes = 64 << 20
    max_body_items: Count = 100_000
    bodies_bytes: PositiveBytes = 512 << 20
    body_seconds: PositiveSeconds = 30.0
    body_bytes_per_second: PositiveBytes = 64 << 10
    connections_per_address: Count = 1024
    keepalive_seconds: Annotated[float, IN_SECONDS, msgspec.Meta(ge=0.05)] = 1.0
    heartbeat_seconds: PositiveSeconds = 10.0
    first_event_seconds: PositiveSeconds = 60.0
    idle_seconds: PositiveSeconds = 300.0
    placement_seconds: PositiveSeconds = 600.0
    settle_seconds: PositiveSeconds = 3.0
    attempts: Count = 4
    window_tokens: Annotated[int, msgspec.Meta(ge=16, le=1 << 20)] = 1024
    slow_reader_seconds: PositiveSeconds = 30.0
    slow_reader_bytes: PositiveBytes = 1 << 20
    socket_idle_seconds: PositiveSeconds = 600.0
    drain_seconds: PositiveSeconds = 30.0
    handover_seconds: PositiveSeconds = 600.0
    cors_origins: tuple[Origin, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    limits_away_seconds: Annotated[float, IN_SECONDS, msgspec.Meta(ge=0)] = 60.0
    responses_file: str = ""
    responses_kept: Count = 10_000
    responses_bytes: PositiveBytes = 512 << 20
    upstreams: tuple[UpstreamSettings, ...] = ()
    tls: TlsSettings | None = None


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[auth.keys]]`: one who may come in.

    Attributes:
        name: the principal: whom logs name and fairness counts.
        key: the secret itself, where `sha256` is unset.
        sha256: its SHA-256 in hex, for files that others may read.
        usual_class: the class of its requests that name none: who goes first where requests wait.
        highest_class: a request that asks for a higher class gets this one.
        console: what it may do at `/ui`: nothing, look at the fleet and at who asks what, also
            load, unload and drain, or also make keys, at `/admin/keys`.
        limits: how much its principal may ask for; of several keys of one name, the last that has
            limits.
    """

    name: Annotated[str, msgspec.Meta(min_length=1)]
    key: Secret | None = None
    sha256: Digest | None = None
    usual_class: Literal["interactive", "default", "batch"] = "default"
    highest_class: Literal["interactive", "default", "batch"] = "interactive"
    console: Literal["none", "view", "operate", "admin"] = "none"
    limits: KeyLimits | None = None


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[auth.oidc]`: an identity provider whose tokens (JWT) are let in like keys.

    Attributes:
        issuer: its URL, as tokens name it in `iss`; https, unless it is on this machine.
        audience: as tokens for this gateway name it in `aud`.
        mapping: what a token's `group_claim` may have, and the group of the store (`cortex keys
            groups`) that its holder is then in; of several the first that is named here. A holder
            of no group is refused.
        group_claim: a claim, or a path to it: `realm_access.roles`.
        principal_claim: the claim that says who the holder is; his principal is `oidc:` and this.
        algorithms: of signatures that are believed.
        jwks_uri: where its signing keys are published; empty: where the issuer's
            `.well-known/openid-configuration` says.
    """

    issuer: str
    audience: Annotated[str, msgspec.Meta(min_length=1)]
    mapping: dict[str, str]
    group_claim: str = "groups"
    principal_claim: str = "sub"
    algorithms: tuple[
        Literal[
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
        ],
        ...,
    ] = ("RS256", "ES256")
    jwks_uri: str = ""


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[auth]`: who may come in.

    Attributes:
        required: refuse requests without a known key. Unset: as soon as there are keys, here or in
            the registry's store (`cortex keys`).
        keys: who may come in besides those who have a key of the store.
        keys_max_age: how long keys of the store are believed while no registry is heard of. They
            are kept in memory alone, and not beyond a restart.
        oidc: whose tokens are let in besides; unset: nobody's.
    """

    required: bool | None = None
    keys: tuple[ApiKey, ...] = ()
    keys_max_age: PositiveSeconds = 86_400.0
    oidc: OidcSettings | None = None

    @property
    def asks_for_keys(self) -> bool:
        """Whether a request without a known key is refused, whatever the store has."""
        has_any = bool(self.keys) or self.oidc is not None
        return has_any if self.required is None else self.required


def read(
    document: Document, *, listens: Address | None = None
) -> tuple[GatewaySettings, AuthSettings]:
    """Both sections, checked as far as types cannot.

    Args:
        document: all settings.
        listens: where a socket listens that was passed to the process, in place of
            `gateway.listen`.

    Raises:
        SettingsError: with file, key and reason.
    """
    gateway = document.section("gateway", GatewaySettings)
    auth = document.section("auth", AuthSettings)
    if not gateway.registry:
        raise SettingsError(f"{document.source}: gateway.registry: names no registry")
    check_upstreams(gateway.upstreams, document.place("gateway.upstreams"))
    for index, key in enumerate(auth.keys):
        if not (key.key or key.sha256):
            raise SettingsError(f"{document.source}: auth.keys[{index}]: needs `key` or `sha256`")
    if auth.oidc is not None:
        for name in ("issuer", "jwks_uri"):
            url = getattr(auth.oidc, name)
            if url and not is_safe_url(url):  # not repeated: a password may stand in it
                told = "expected a URL of https or of this machine, without a user in it"
                raise SettingsError(f"{document.place(f'auth.oidc.{name}')}: {told}")
    refuse_exposed(
        document,
        "gateway",
        listens or Address.parse(gateway.listen),
        is_meant=auth.asks_for_keys or gateway.insecure,
        remedy=(
            "Add a key: `[[auth.keys]]` with `name` and `key`, or `required = true` in [auth] where"
            " all keys are in the registry's store"
        ),
    )
    return gateway, auth


def is_safe_url(url: str) -> bool:
    """Whether a URL names no user, and nobody on the way to it can change what is read there."""
    try:
        names_user = "@" in urlsplit(url).netloc
    except ValueError:
        return False
    return not names_user and (url.startswith("https://") or is_local_url(url))


def is_local_url(url: str) -> bool:
    """Whether a URL of plain HTTP leads nowhere but to this machine."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        return False
    return parts.scheme == "http" and is_loopback(Address(host, port))
