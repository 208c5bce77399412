"""gRPC channels: one set of options, one channel per address."""

from __future__ import annotations

from typing import Final

import grpc

from services.backplane.address import Address
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role, server_name

MAX_MESSAGE_BYTES: Final = 64 << 20
# Keep-alive finds dead and frozen peers within seconds; servers must allow it (SERVER_OPTIONS).
_KEEPALIVE: Final = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # The timeout that counts since grpc 1.6x; a minute by default, whatever the one above says.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
_SIZES: Final = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
CHANNEL_OPTIONS: Final[list[tuple[str, int]]] = [
    *_SIZES,
    *_KEEPALIVE,
    # A restarted peer is found again within a second, not after minutes of back-off.
    ("grpc.initial_reconnect_backoff_ms", 200),
    # Not a pause: so long an attempt may take. A host under load is slow to greet.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
]
SERVER_OPTIONS: Final[list[tuple[str, int]]] = [
    *_SIZES,
    *_KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_concurrent_streams", 65_535),
    # Without this a second process shares the port silently.
    ("grpc.so_reuseport", 0),
]


def open_channel(
    address: Address | str,
    credentials: FleetCredentials | None = None,
    *,
    role: Role = Role.REGISTRY,
    neuron: str = "",
) -> grpc.aio.Channel:
    """A channel that connects on first use; close it when done.

    Args:
        address: of the server; to a Unix socket everybody speaks plain text.
        credentials: this process's; None speaks plain text.
        role: what the server's certificate has to say of it, whatever its address is.
        neuron: whose certificate it has to be; empty for any of the role.
    """
    target = str(address)
    if credentials is None or target.startswith("unix:"):
        return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(
        target,
        credentials.for_channel(),
        options=[
            *CHANNEL_OPTIONS,
            ("grpc.ssl_target_name_override", server_name(role, neuron=neuron)),
        ],
    )


class ChannelPool:
    """One channel per address, opened on first use, closed together.

    Args:
        credentials: this process's; None speaks plain text. After they were renewed new calls get
            a new channel, and those that run keep the old one.
    """

    def __init__(self, credentials: FleetCredentials | None = None) -> None:
        self._credentials = credentials
        self._generation = 0
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._outdated: dict[str, list[grpc.aio.Channel]] = {}

    @property
    def credentials(self) -> FleetCredentials | None:
        """The certificates that channels are opened with; None: plain text."""
        return self._credentials

    def get(self, address: str, *, role: Role = Role.NEURON, neuron: str = "") -> grpc.aio.Channel:
        """The channel to an address; for the rest see `open_channel`."""
        if self._credentials is not None and self._credentials.generation != self._generation:
            self._generation = self._credentials.generation
            for held, outdated in self._channels.items():
                self._outdated.setdefault(held, []).append(outdated)
            self._channels.clear()
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = open_channel(
                address, self._credentials, role=role, neuron=neuron
            )
        return channel

    async def discard(self, address: str) -> None:
        """Closes the channels to an address that has left; unknown ones are ignored."""
        channel = self._channels.pop(address, None)
        for each in (*self._outdated.pop(address, ()), *([channel] if channel else ())):
            await each.close()

    async def close(self) -> None:
        """Closes all; calls in flight on them end with CANCELLED."""
        for address in {*self._channels, *self._outdated}:
            await self.discard(address)
