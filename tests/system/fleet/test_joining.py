"""Hosts that join by tokens: real processes, certificates between all of them, and one revoked."""

from __future__ import annotations

import asyncio
import os
import pathlib
import stat
import subprocess
import sys
import time
import tomllib

import grpc
import msgspec
import pytest
import typer.testing

from services.backplane.security.authority import create, issue
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role
from services.backplane.security.settings import FleetSettings
from services.cli.__main__ import app
from tests.system.fleet.clients import Clients, has_text
from tests.system.fleet.processes import PATIENCE_SECONDS, Fleet, free_port, until

NEURONS = ("left", "right", "dialled")
MODELS = dict(zip(NEURONS, ("alpha", "bravo", "charlie"), strict=True))


class SecureFleet(Fleet):
    """A fleet whose registry gives certificates to neurons.

    Attributes:
        door: where hosts join.
        own: `[fleet]` of registry, gateway and operator.
    """

    def prepare(self) -> None:
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
        self.door = f"127.0.0.1:{free_port()}"
        self.authority = f'authority = "{pki}"\njoin_listen = "{self.door}"\n'

    def join(self, name: str, *more: str, token: str = "") -> subprocess.CompletedProcess[str]:
        """`cortex join` on the new host, which has nothing but the token."""
        token = token or self.cli("neurons", "token", name).stdout.strip()
        where = ["--dir", str(self.folder / "hosts" / name)]
        command = ["join", self.door, "--token", token, *where, *more]
        return subprocess.run(
            [sys.executable, "-m", "services.cli", *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )


def mode(path):
    return stat.S_IMODE(pathlib.Path(path).stat().st_mode)


@pytest.fixture
def fleet(tmp_path, catalogue):
    fleet = SecureFleet(tmp_path, catalogue)
    fleet.prepare()
    yield fleet
    codes = fleet.end()
    assert set(codes.values()) <= {0}, codes


async def test_three_hosts_join_and_the_two_that_are_revoked_are_gone(fleet, measured):
    dialled = f"127.0.0.1:{free_port()}"
    entry = f'[[neurons]]\nname = "dialled"\nendpoint = "{dialled}"\n'
    # a lease that no test outlives: who is gone is gone because of its certificate
    # and certificates of which less than a third is left: each is renewed every few seconds
    settings = (
        f"lease_seconds = 600\ncertificate_seconds = 120\n{fleet.authority}{entry}{fleet.own}"
    )
    fleet.add_registry(settings=settings)
    until(fleet.state)
    told = {}
    for name in NEURONS:
        joined = fleet.join(name)
        assert joined.returncode == 0, joined.stderr
        told[name] = joined.stdout.partition("\n\n")[2]
        lines = tomllib.loads(told[name])
        assert lines["neuron"] == {"name": name, "registry": fleet.registries}
        assert lines["fleet"].pop("renew") is True
        assert {mode(path) for path in lines["fleet"].values()} == {0o600}
        assert mode(fleet.folder / "hosts" / name) == 0o700
    files = {name: told[name].partition("[neuron]")[0] for name in NEURONS}
    fleet.add_neuron("left", settings=files["left"])
    fleet.add_neuron("right", settings=files["right"])
    registries, fleet.registries = fleet.registries, []
    fleet.add_neuron("dialled", listen=dialled, settings=files["dialled"])
    fleet.registries = registries
    fleet.add_gateway(settings=fleet.own)
    await asyncio.to_thread(fleet.wait, *NEURONS)
    for name, model in MODELS.items():
        await asyncio.to_thread(fleet.cli, "load", model, "--neuron", name)

    async with Clients(fleet.url) as clients:
        running = {name: clients.begin(model, 3000) for name, model in MODELS.items()}
        for answer, _ in running.values():
            await has_text(answer)
        for name in ("left", "dialled"):
            began = time.monotonic()
            await asyncio.to_thread(fleet.cli, "neurons", "revoke", name)
            answered = time.monotonic()
            await asyncio.to_thread(until, lambda name=name: name not in fleet.live())
            gone = time.monotonic()
            measured(
                f"{name} revoked: out of the fleet {gone - answered:.2f} s after the command, which"
                f" took {answered - began:.1f} s with its start"
            )
        answer, task = running["right"]
        assert (await task).is_whole, answer

    await asyncio.to_thread(until, lambda: list(fleet["right"].lines("certificate.renewed")))
    assert fleet.live() == {"right"}
    refused = await asyncio.to_thread(until, lambda: list(fleet["left"].lines("registry.detached")))
    assert "revoked" in refused[-1]["reason"]
    assert fleet.live() == {"right"}

    again = await asyncio.to_thread(fleet.join, "left", "--replace")
    assert again.returncode == 0, again.stderr
    await asyncio.to_thread(until, lambda: fleet.live() == {"left", "right"})


def test_what_cannot_join_says_why_in_a_line(fleet, monkeypatch):
    fleet.add_registry(settings=f"{fleet.authority}{fleet.own}")
    until(fleet.state)
    for key, value in fleet.environment.items():
        monkeypatch.setenv(key, value)
    commands = typer.testing.CliRunner()
    folder = str(fleet.folder / "host")

    def join(token, *more):
        return commands.invoke(app, ["join", fleet.door, "--token", token, "--dir", folder, *more])

    made = commands.invoke(app, ["neurons", "token", "beast", "--registry", fleet.registries[0]])
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    for refused, why in (
        (join("made-up"), "no token as `cortex neurons token` prints it"),
        (join(token[:-1] + "~"), "no token as `cortex neurons token` prints it"),
        (join(token[:-2] + "xx"), "not known here"),
        (join(token, "--neuron", "other"), "is for 'beast', not for 'other'"),
    ):
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert why in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert join(token).exit_code == 0
    assert "exists; --replace" in join(token).stderr
    assert "was used" in join(token, "--replace").stderr
    kept = fleet["registry"].log_path.read_text() + str(fleet.state())
    assert token.rpartition(".")[2] not in kept
