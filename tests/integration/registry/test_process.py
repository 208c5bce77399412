"""`python -m services.registry` as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import signal
import sys

import pytest

from services.backplane.rpc.channels import open_channel
from services.backplane.settings import SettingsError, load
from services.registry.wire import running
from tests.doubles.registry_neuron import LOOPBACK
from tests.doubles.registry_stand_ins import document, running_fleet
from tests.integration.registry.two_models import TWO

SECONDS = 60.0
ONE = '[[models]]\nid = "a"\nsource = "path:/a"\nmemory = "10MiB"\n'


async def test_a_hangup_reads_catalogue_and_settings_and_ends_nothing(tmp_path):
    catalogue, config = tmp_path / "models.toml", tmp_path / "cortex.toml"
    catalogue.write_text(ONE)
    text = (
        f'[registry]\nlisten = "127.0.0.1:0"\nmetrics_listen = ""\nmodels = "{catalogue}"\n'
        'store = "sqlite::memory:"\n[log]\nformat = "json"\n'
    )
    config.write_text(text)
    registry = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.registry", "--config", str(config)),
        env={k: v for k, v in os.environ.items() if not k.startswith("CORTEX_")},
        stderr=asyncio.subprocess.PIPE,
    )

    async def line(event):
        assert registry.stderr is not None
        async with asyncio.timeout(SECONDS):
            while data := await registry.stderr.readline():
                found = json.loads(data)
                if found["event"] == event:
                    return found
        raise AssertionError(f"no line {event}")

    await line("leadership.taken")
    catalogue.write_text(ONE.replace('"a"', '"b"'))
    config.write_text(text.replace("[log]", "lease_seconds = 3\n[log]"))
    registry.send_signal(signal.SIGHUP)
    catalogue_line = await line("catalogue.reloaded")
    settings_line = await line("settings.reloaded")
    config.write_text("[registry]\nlisten = 1")
    registry.send_signal(signal.SIGHUP)
    refused = await line("settings.refused")
    registry.send_signal(signal.SIGTERM)
    await registry.communicate()

    assert (catalogue_line["added"], catalogue_line["removed"]) == (["b"], ["a"])
    assert settings_line["needs_restart"] == ["registry.lease_seconds"]
    assert "registry.listen" in refused["detail"]
    assert registry.returncode == 0


async def test_an_address_that_others_reach_is_served_on_somebodys_word_alone():
    values = {"LISTEN": "0.0.0.0:0", "METRICS_LISTEN": "", "STORE": "sqlite::memory:"}
    environment = {f"CORTEX_REGISTRY__{key}": value for key, value in values.items()}
    nothing = pathlib.Path(os.devnull)

    with pytest.raises(SettingsError, match="insecure = true"):
        async with running(load(nothing, environment)):
            pass
    environment["CORTEX_REGISTRY__INSECURE"] = "true"
    async with running(load(nothing, environment)) as address:
        assert address.port


async def test_a_port_in_use_and_a_bad_catalogue_are_said_in_one_sentence(tmp_path):
    from services.backplane.address import PortTakenError
    from services.backplane.settings import SettingsError
    from services.registry.wire import running

    settings = document(tmp_path, TWO)
    async with running(settings, listen=LOOPBACK) as address:
        with pytest.raises(PortTakenError, match="in use"):
            async with running(settings, listen=address):
                pass
    (tmp_path / "models.toml").write_text('[[models]]\nid = "a"\nmemory = "lots"\n')
    with pytest.raises(SettingsError, match=r"models\.toml: models\[0\]\.memory: 'lots'"):
        async with running(settings, listen=LOOPBACK):
            pass


async def test_health_and_reflection_name_both_services(tmp_path):
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async with running_fleet(document(tmp_path, TWO)) as fleet:
        channel = open_channel(fleet.address)
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(
            health_pb2.HealthCheckRequest(service="cortex.v1.OperatorService")
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        async for listed in call:
            names = {s.name for s in listed.list_services_response.service}
            assert {"cortex.v1.RegistryService", "cortex.v1.OperatorService"} <= names
        await channel.close()
