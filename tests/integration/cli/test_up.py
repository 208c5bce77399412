"""`cortex up` as processes: whose settings hold, who is let in, and what does not end it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from services.cli.up_settings import free_ports
from tests.system.local_fleet import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# A key of which the fleet knows the digest alone, `k`.
SETTINGS = """
[gateway]
listen = "0.0.0.0:{port}"
[registry]
listen = "127.0.0.1:{registry}"
[neuron]
name = "mine"
[[auth.keys]]
name = "ann"
sha256 = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a"
"""


@contextlib.contextmanager
def up(folder: pathlib.Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A fleet that has said where it is, with all that it said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cli", "up", "--data-dir", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    said: list[str] = []
    told = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if line.startswith("  logs"):
                told.set()
        told.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert told.wait(90)
        yield process, "".join(said)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def lets_in(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError:
        return False
    return True


def test_a_fleet_has_its_users_settings_and_keeps_strangers_from_its_control_plane(tmp_path):
    ports = free_ports()
    config = tmp_path / "cortex.toml"
    config.write_text(SETTINGS.format(port=ports.gateway, registry=ports.registry))
    data = tmp_path / "data"

    with up(data, "--config", str(config), "--model", "nonesuch") as (process, said):
        assert process.poll() is None
        assert "'nonesuch' does not exist" in said
        assert "neuron.name" not in said
        assert f"cortex status --registry 127.0.0.1:{ports.registry}" in said
        added = dict(re.findall(r"([\w.]+) = ([^,;]*)", said.partition(":")[2].partition(";")[0]))
        inside = [f"127.0.0.1:{ports.registry}", *added.values()]
        control_plane = {text.strip() for text in inside if text.startswith("127.0.0.1:")}
        assert len(control_plane) == 5
        for address in control_plane:
            until(functools.partial(lets_in, address))  # a neuron starts slowly
            assert not lets_in(address.replace("127.0.0.1", "127.0.0.2"))
        assert lets_in(f"127.0.0.2:{ports.gateway}")
        assert "smollm2-135m" in models(ports.gateway, "k")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            models(ports.gateway, "other")

    assert process.returncode == 0


def models(port: int, key: str) -> list[str]:
    request = urllib.request.Request(
        f"http://127.0.0.2:{port}/v1/models", headers={"authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return [each["id"] for each in json.load(response)["data"]]
