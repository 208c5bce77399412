"""Versions differ by one minor during an upgrade: each part of the last release beside today's.

The last release is the commit that the changelog names, in a folder and with generated modules of
its own. Without history it cannot be had, and the tests say so.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import subprocess
import sys

import anthropic
import openai
import pytest

from tests.system.fleet.clients import Clients, has_text
from tests.system.fleet.processes import ALLOWED, until

ROOT = pathlib.Path(__file__).parents[3]
NAMED = re.compile(r"^## (\d+\.\d+\.\d+).*\n\n.*commit `([0-9a-f]+)`", re.MULTILINE)
SECRET = "unused"
TURN = [{"role": "user", "content": "Go"}]
PARTS = ("registry", "neuron", "gateway")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The tree of the last release."""
    named = NAMED.search((ROOT / "CHANGELOG.md").read_text())
    assert named is not None, "the changelog names no release with its commit"
    version, commit = named.groups()
    archived = subprocess.run(
        ["git", "archive", "--format=tar", commit, "services", "protos"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if archived.returncode:
        pytest.skip(f"no history here, so {version} ({commit}) cannot be had: {archived.stderr!r}")
    folder = tmp_path_factory.mktemp("release")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archived.stdout, check=True)
    subprocess.run(
        [sys.executable, "protos/build_hook.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        check=True,
    )
    return folder


def start(fleet, old, release):
    """A fleet of which some parts are of the last release."""
    trees = {part: release if part in old else None for part in PARTS}
    fleet.add_registry(tree=trees["registry"])
    for name in ("left", "right"):
        fleet.add_neuron(name, tree=trees["neuron"], settings="drain_seconds = 0.0")
    fleet.add_gateway(tree=trees["gateway"])
    fleet.wait("left", "right")


async def ask_every_way(url):
    """By both SDKs, whole and streamed; beside them, what needs other calls of the contract."""
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=SECRET, max_retries=0) as one,
        anthropic.AsyncAnthropic(base_url=url, api_key=SECRET, max_retries=0) as other,
    ):
        asked = {"model": "alpha", "messages": TURN, "max_tokens": 6}
        answer = await one.chat.completions.create(**asked)
        chunks = await one.chat.completions.create(**asked, stream=True)
        streamed = "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])
        message = await other.messages.create(**asked)
        counted = await other.messages.count_tokens(model="alpha", messages=TURN)
        models = [each.id async for each in one.models.list()]
        response = await one.responses.create(model="alpha", input="Go", max_output_tokens=6)
    said = "Alpha opens quietly under early stars."
    assert answer.choices[0].message.content == streamed == message.content[0].text == said
    assert response.output_text == said
    assert counted.input_tokens > 0
    assert {"alpha", "bravo", "charlie"} <= set(models)


@pytest.mark.parametrize(
    "old",
    [("gateway",), ("registry", "neuron"), ("neuron",), ("registry",), ("registry", "gateway")],
    ids=" and ".join,
)
async def test_a_part_of_the_last_release_works_with_todays(fleet, release, old, measured):
    start(fleet, old, release)

    await ask_every_way(fleet.url)
    async with Clients(fleet.url) as clients:
        answers = await clients.all([(model, 300) for model in ("alpha", "bravo", "charlie")] * 4)
        unknown = await clients.stream("delta", 4)
        left, leaving = clients.begin("alpha", 20000)
        await has_text(left)
        leaving.cancel()
        await asyncio.to_thread(until, lambda: fleet.in_flight()["alpha"] == 0)

    assert [str(answer) for answer in answers if not answer.is_whole] == []
    assert unknown.status == 404
    assert "delta" in unknown.error
    faults = [
        f"{service.name}: {line}"
        for service in fleet.services.values()
        for line in service.lines()
        if line.get("level") in {"error", "critical"}
    ]
    assert faults == []
    measured(f"{' and '.join(old)} of the last release: {len(answers)} streams whole")


@pytest.mark.parametrize("old", [("gateway",), ("neuron",), ("registry",)], ids=" and ".join)
async def test_a_killed_neuron_ends_in_words_or_moves(fleet, release, old):
    """Streams of the last release end with an error frame; later requests go elsewhere."""
    start(fleet, old, release)
    async with Clients(fleet.url) as clients:
        assert (await clients.stream("alpha", 4)).is_whole
        home = until(lambda: [name for name, held in fleet.placed().items() if "alpha" in held])[0]
        running = [clients.begin("alpha", 3000) for _ in range(4)]
        await has_text(running[0][0])

        await asyncio.to_thread(fleet[home].kill)
        again = await clients.stream("alpha", 30)
        answers = await asyncio.gather(*(task for _, task in running))

    assert again.is_whole, again
    for answer in answers:
        assert answer.expected.startswith(answer.text), answer
        assert answer.is_whole or answer.error.startswith("{"), answer


@pytest.mark.parametrize("old", [("registry", "neuron", "gateway")], ids=["everything"])
async def test_the_last_release_is_upgraded_part_by_part(fleet, release, old):
    """In the order of docs/operating.md, on the files that it has left; nobody is refused later."""
    start(fleet, old, release)
    async with Clients(fleet.url) as clients:
        assert (await clients.stream("alpha", 4)).is_whole
        fleet.cli("pin", "alpha")
        for name in ("registry", "gateway", "left", "right"):
            service = fleet[name]
            assert service.end() == 0
            service.tree = None
            if name in {"left", "right"}:  # as the changelog says: sources have to be allowed
                settings = fleet.folder / f"{name}.toml"
                settings.write_text(settings.read_text().replace("threads", f"{ALLOWED}\nthreads"))
            service.start()
            fleet.wait("left", "right")
            answer = await clients.stream("alpha", 30)
            assert answer.is_whole, (name, answer)
        assert "pinned" in fleet.cli("models").stdout
