"""Another client: acpx, from the npm registry, in its newest release (it wants Node 22)."""

import asyncio
import json
import os
import shutil
import sys
from typing import Any

import pytest

from tests.system.agent.conftest import ROOT, Place
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("acpx") is None, reason="acpx is not installed"),
]

READ = Call("read_file", {"path": "greeting.txt"}, "c1")
EDIT = Call("edit_file", {"path": "greeting.txt", "old_text": "world", "new_text": "acpx"}, "c2")
RUN = Call("bash", {"command": "cat greeting.txt"}, "c3")


async def acpx(place: Place, endpoint: ScriptedEndpoint, *arguments: str) -> list[dict[str, Any]]:
    """Runs acpx and returns the protocol messages that it reports."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place.home),
        "XDG_STATE_HOME": str(place.home / "state"),
        "XDG_DATA_HOME": str(place.home / "data"),
        "PYTHONPATH": str(ROOT),
        "CORTEX_ACP_BASE_URL": f"{endpoint.url}/v1",
    }
    process = await asyncio.create_subprocess_exec(
        "acpx",
        *("--agent", f"{sys.executable} -m services.agent"),
        *("--cwd", str(place.project), "--format", "json"),
        *arguments,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert output, errors.decode()
    return [json.loads(line) for line in output.decode().splitlines() if line.startswith("{")]


def stop_reasons(messages: list[dict[str, Any]]) -> list[str]:
    results = [message.get("result") or {} for message in messages]
    return [result["stopReason"] for result in results if "stopReason" in result]


@pytest.mark.parametrize("extras", [(), ("--no-fs", "--no-terminal")], ids=["full", "bare"])
async def test_a_prompt_reads_edits_and_runs(place: Place, extras: tuple[str, ...]):
    answers = [Answer(text="Reading.", calls=[READ]), Answer(calls=[EDIT]), Answer(calls=[RUN])]
    async with ScriptedEndpoint(*answers, Answer(text="Done.")) as endpoint:
        messages = await acpx(place, endpoint, "--approve-all", *extras, "exec", "do it")

    assert ["end_turn"] == stop_reasons(messages)
    assert "hello acpx\n" == (place.project / "greeting.txt").read_text()
    assert "hello acpx" in json.dumps(endpoint.requests[3]["messages"][-1])


async def test_a_refused_permission_changes_nothing(place: Place):
    async with ScriptedEndpoint(Answer(calls=[EDIT, RUN]), Answer(text="No.")) as endpoint:
        messages = await acpx(place, endpoint, "--deny-all", "exec", "do it")

    assert ["end_turn"] == stop_reasons(messages)
    assert "hello world\n" == (place.project / "greeting.txt").read_text()
    results = [m["content"] for m in endpoint.requests[1]["messages"] if m["role"] == "tool"]
    assert ["ERROR: the user refused this call"] * 2 == results
