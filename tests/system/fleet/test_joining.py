"""Hosts that join by tokens: real processes, certificates between all of them, and one revoked."""

from __future__ import annotations

import asyncio
import pathlib
import stat
import time
import tomllib

import typer.testing

from services.cli.__main__ import app
from tests.doubles.processes import free_port
from tests.system.fleet.clients import Clients, has_text
from tests.system.fleet.processes import until
from tests.system.fleet.secure import fleet_settings

NEURONS = ("left", "right", "dialled")
MODELS = dict(zip(NEURONS, ("alpha", "bravo", "charlie"), strict=True))


def mode(path):
    return stat.S_IMODE(pathlib.Path(path).stat().st_mode)


async def test_three_hosts_join_and_the_two_that_are_revoked_are_gone(secure_fleet, measured):
    fleet = secure_fleet
    dialled = f"127.0.0.1:{free_port()}"
    entry = f'[[neurons]]\nname = "dialled"\nendpoint = "{dialled}"\n'
    # a lease that no test outlives: who is gone is gone because of its certificate
    # and certificates of which less than a third is left: each is renewed every few seconds
    settings = (
        f"lease_seconds = 600\ncertificate_seconds = 120\n{fleet.authority}{entry}{fleet.own}"
    )
    fleet.add_registry(settings=settings)
    until(fleet.state)
    files = {}
    for name in NEURONS:
        joined = fleet.join(name)
        assert joined.returncode == 0, joined.stderr
        files[name] = fleet_settings(joined.stdout)
        lines = tomllib.loads(joined.stdout.partition("\n\n")[2])
        assert lines["neuron"] == {"name": name, "registry": fleet.registries}
        assert lines["fleet"].pop("renew") is True
        assert {mode(path) for path in lines["fleet"].values()} == {0o600}
        assert mode(fleet.folder / "hosts" / name) == 0o700
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
    # not the last of them: a write that meets the end of the call can hide the status of one attempt
    await asyncio.to_thread(
        until,
        lambda: any(
            "revoked" in line["reason"] for line in fleet["left"].lines("registry.detached")
        ),
    )
    assert fleet.live() == {"right"}

    again = await asyncio.to_thread(fleet.join, "left", "--replace")
    assert again.returncode == 0, again.stderr
    await asyncio.to_thread(until, lambda: fleet.live() == {"left", "right"})


def test_what_cannot_join_says_why_in_a_line(secure_fleet, monkeypatch):
    fleet = secure_fleet
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
