"""A fleet of real processes whose registry gives certificates, and hosts that join it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence

import grpc
import msgspec

from services.backplane.security.authority import create, issue
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role
from services.backplane.security.settings import FleetSettings
from tests.doubles.processes import free_port
from tests.system.fleet.processes import PATIENCE_SECONDS, Fleet


@dataclasses.dataclass
class SecureFleet(Fleet):
    """A fleet whose registry gives certificates to neurons.

    Attributes:
        door: where hosts join.
        own: `[fleet]` of registry, gateway and operator.
        authority: more of `[registry]`: how it gives certificates.
    """

    door: str = dataclasses.field(init=False)
    own: str = dataclasses.field(init=False)
    authority: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Makes the authority and the certificates of all that is no neuron."""
        pki = self.folder / "pki"
        create(pki)
        issue(pki, [Role.REGISTRY, Role.GATEWAY, Role.OPERATOR], out=pki / "own", days=100)
        paths = {"ca": "ca.pem", "certificate": "own.pem", "key": "own.key"}
        settings = {key: str(pki / name) for key, name in paths.items()}
        self.environment = {f"CORTEX_FLEET__{key.upper()}": to for key, to in settings.items()}
        self.own = "[fleet]\n" + "".join(f'{key} = "{to}"\n' for key, to in settings.items())
        credentials = FleetCredentials(msgspec.convert(settings, FleetSettings)).for_channel()
        override = (("grpc.ssl_target_name_override", Role.REGISTRY.server_name),)
        self.channel = lambda to: grpc.secure_channel(to, credentials, options=override)
        self.door = f"{self.host}:{free_port()}"
        self.authority = f'authority = "{pki}"\njoin_listen = "{self.door}"\n'

    def join(
        self, name: str, *more: str, token: str = "", within: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """`cortex join` on the new host, which has nothing but the token."""
        token = token or self.cli("neurons", "token", name).stdout.strip()
        where = ["--dir", str(self.folder / "hosts" / name)]
        command = ["join", self.door, "--token", token, *where, *more]
        return subprocess.run(
            [*within, sys.executable, "-m", "services.cli", *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )

    def joined(self, name: str, *, within: Sequence[str] = ()) -> str:
        """Joins; returns `[fleet]` of the new neuron."""
        done = self.join(name, within=within)
        assert done.returncode == 0, done.stderr
        return fleet_settings(done.stdout)


def fleet_settings(told: str) -> str:
    """`[fleet]` of what `cortex join` told."""
    return told.partition("\n\n")[2].partition("[neuron]")[0]
