"""`cortex logs` beside a real `cortex up`: one request is found in every log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import httpx
import pytest

from tests.system.local_fleet import RunningFleet, until

pytestmark = pytest.mark.timeout(500)
CLI = (sys.executable, "-m", "services.cli")


def ask(fleet: RunningFleet, model: str) -> str:
    """Asks a model; returns the request's id."""
    answer = httpx.post(
        f"{fleet.url}/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "Hi"}]},
        timeout=200,
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["x-request-id"]


def unload(fleet: RunningFleet, model: str) -> None:
    """So that the registry has to place it again; not being loaded is fine."""
    subprocess.run(
        [*CLI, "unload", model, "--registry", fleet.registry],
        check=False,
        capture_output=True,
        timeout=200,
    )


def found(fleet: RunningFleet, *arguments: str) -> list[dict[str, str]]:
    done = subprocess.run(
        [*CLI, "logs", "--data-dir", str(fleet.data_dir), "--json", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_one_request_is_found_in_every_log(scripted_fleet: RunningFleet) -> None:
    unload(scripted_fleet, "bravo")
    request = ask(scripted_fleet, "bravo")

    services = ("gateway", "neuron", "registry")
    until(lambda: all(request in scripted_fleet.log(name) for name in services), 120)

    lines = found(scripted_fleet, "--request", request)

    assert set(services) == {line["service"] for line in lines}
    assert {request} == {line["request_id"] for line in lines}
    assert "request.finished" in {line["event"] for line in lines}
    times = [line["timestamp"] for line in found(scripted_fleet, "--lines", "0")]
    assert times == sorted(times)


def test_what_is_written_is_followed(scripted_fleet: RunningFleet) -> None:
    shell = ["env", "--default-signal=INT"]  # the tests' own process may ignore it
    command = [*shell, *CLI, "logs", "gateway", "--follow", "-n", "1", "--json"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(scripted_fleet.data_dir)], stdout=subprocess.PIPE, text=True
    )
    output = process.stdout
    assert output is not None
    try:
        output.readline()  # the last one: it has begun to follow
        request = ask(scripted_fleet, "alpha")
        while request not in output.readline():
            pass
    finally:
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(30)
        output.close()
