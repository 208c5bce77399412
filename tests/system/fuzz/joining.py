"""A fleet in which hosts join by token, and whose ports ask for certificates, for a fuzzer."""

from __future__ import annotations

import dataclasses
import pathlib
import socket

import grpc

from services.backplane.security.authority import create, issue
from services.backplane.security.roles import Role

HOST = "joiner"
"""The host that asks to join."""


@dataclasses.dataclass(frozen=True)
class Guarded:
    """What a fleet with an authority is started by, and reached with.

    Attributes:
        pki: the authority's folder.
        settings: of registry, gateway and neuron, a file for `cortex up`.
        door: where hosts join.
    """

    pki: pathlib.Path
    settings: pathlib.Path
    door: str

    def channel(self, address: str, certificate: str = "") -> grpc.Channel:
        """To a port of the fleet, with a certificate of the authority's folder or without one."""
        own = [
            (self.pki / f"{certificate}.{end}").read_bytes()
            for end in ("key", "pem")
            if certificate
        ]
        credentials = grpc.ssl_channel_credentials((self.pki / "ca.pem").read_bytes(), *own)
        name = Role.REGISTRY.server_name
        return grpc.secure_channel(
            address, credentials, options=(("grpc.ssl_target_name_override", name),)
        )


def guarded(folder: pathlib.Path) -> Guarded:
    """Makes the authority, a certificate that is everything, and one of the neuron alone."""
    pki = folder / "pki"
    create(pki)
    issue(pki, list(Role), neuron="local", out=pki / "all", days=2)
    issue(pki, [Role.NEURON], neuron="local", out=pki / "neuron", days=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        door = f"127.0.0.1:{taken.getsockname()[1]}"
    settings = folder / "cortex.toml"
    settings.write_text(
        f'[fleet]\nca = "{pki}/ca.pem"\ncertificate = "{pki}/all.pem"\nkey = "{pki}/all.key"\n'
        f'[registry]\nauthority = "{pki}"\njoin_listen = "{door}"\njoin_approval = true\n'
    )
    return Guarded(pki, settings, door)
