"""`python -m services.registry` as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import signal
import sys

import pytest

from services.backplane.settings import SettingsError, load
from services.registry.wire import running

SECONDS = 30.0
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
