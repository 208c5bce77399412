"""What an operator does to a fleet that works: nothing that runs is cut, everything is explained."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys

import pytest

from cortex.v1 import operator_service_pb2 as op
from tests.system.fleet.clients import Clients, has_text, two_loaded
from tests.system.fleet.models import WORDS
from tests.system.fleet.processes import until


@pytest.fixture
def clean(pair):
    """The pair as it was: nothing cordoned, nothing pinned."""
    yield pair
    with pair.operator() as stub:
        for name in ("left", "right"):
            stub.UncordonNeuron(op.UncordonNeuronRequest(neuron=name), timeout=10)
        for name in WORDS:
            stub.UnpinModel(op.UnpinModelRequest(model=name), timeout=10)


def explain(pair, model):
    answer = json.loads(pair.cli("explain", model, "--json").stdout)
    return answer, {each["neuron"]: each for each in answer["candidates"]}


def has_two_victims(pair, model):
    """True once the least time of residency is over on both neurons."""
    with pair.operator() as stub:
        answer = stub.ExplainPlacement(op.ExplainPlacementRequest(model=model), timeout=10)
    return all(candidate.evicted_models for candidate in answer.candidates)


async def test_explain_names_every_candidate_and_its_reason(clean):
    async with Clients(clean.url) as clients:
        left, right, absent = await two_loaded(clean, clients)
        loads = len(list(clean["registry"].lines("load.ordered")))
        until(lambda: has_two_victims(clean, absent))
        answer, candidates = explain(clean, absent)

        assert answer["verdict"] == "PLACEMENT_VERDICT_EVICT"
        assert candidates["left"]["evicted_models"] == [left]
        assert candidates["right"]["evicted_models"] == [right]
        assert f"evicting {left}" in candidates["left"]["reason"]
        assert candidates["left"]["predicted"]

        clean.cli("cordon", "left")
        clean.cli("pin", right)
        answer, candidates = explain(clean, absent)

        assert candidates["left"]["reason"] == "it is cordoned"
        assert candidates["right"]["reason"] == f"may not be displaced: {right} (pinned)"
        assert not any(c.get("feasible") for c in candidates.values())
        table = clean.cli("explain", absent).stdout
        for words in ("left", "right", "it is cordoned", f"{right} (pinned)", "refused"):
            assert words in table
        refused = await clients.stream(absent, 1)
        assert '"no_room"' in refused.error
        assert f"{right} (pinned)" in refused.error
        assert "it is cordoned" in refused.error
        assert len(list(clean["registry"].lines("load.ordered"))) == loads


async def test_drain_lets_streams_finish_and_moves_the_work(clean):
    async with Clients(clean.url) as clients:
        left, _, absent = await two_loaded(clean, clients)
        answer, stream = clients.begin(left, 6000)
        await has_text(answer)

        draining = asyncio.create_task(asyncio.to_thread(clean.cli, "drain", "left"))
        await asyncio.to_thread(until, lambda: clean.is_cordoned("left"))
        new = await clients.stream(absent, 20)
        done = await draining

        assert "drained and cordoned" in done.stdout
        assert stream.done()
        assert (await stream).is_whole, answer
        assert new.is_whole
        until(lambda: clean.placed()["left"] == [])
        # the model that was drained is asked for again: it goes to the other neuron
        assert (await clients.stream(left, 20)).is_whole
        until(lambda: clean.placed() == {"left": [], "right": [left]})

        clean.cli("uncordon", "left")
        assert (await clients.stream(absent, 20)).is_whole
        until(lambda: clean.placed() == {"left": [absent], "right": [left]})


async def test_a_change_that_needs_no_load_cuts_nothing_and_loads_nothing(clean):
    text = clean.catalogue.read_text()
    async with Clients(clean.url) as clients:
        left, *_ = await two_loaded(clean, clients)
        answer, stream = clients.begin(left, 3000)
        await has_text(answer)
        before = clean.instances(left)
        loads = len(list(clean["registry"].lines("load.ordered")))
        edited = text.replace(
            f'id = "{left}"\n',
            f'id = "{left}"\naliases = ["quick"]\ndescription = "words"\n'
            "limits = { output = 6000, wait = 60, sequences = 2 }\nsampling = { top_k = 7 }\n",
        )
        try:
            clean.catalogue.write_text(edited)
            assert f"changed: {left}" in clean.cli("reload").stdout

            until(lambda: [i.spec.default_sampling.top_k for i in clean.instances(left)] == [7])
            assert (await clients.stream(left, 20)).is_whole
            assert (await stream).is_whole
            assert [i.loaded_at for i in clean.instances(left)] == [i.loaded_at for i in before]
            assert len(list(clean["registry"].lines("load.ordered"))) == loads
            assert list(clean["registry"].lines("instance.not_updated")) == []
        finally:
            clean.catalogue.write_text(text)
            clean.cli("reload")


@pytest.mark.slow
async def test_a_pinned_model_stays_whatever_is_asked_for(clean):
    async with Clients(clean.url) as clients:
        left, right, absent = await two_loaded(clean, clients)
        clean.cli("pin", left)

        answers = await clients.all([(right, 200), (absent, 200), (left, 200)] * 2)
        answers += await clients.all([(right, 200), (absent, 200)])

        assert [str(answer) for answer in answers if not answer.is_whole] == []
        until(lambda: clean.placed()["left"] == [left])
        assert "yes" in clean.cli("models").stdout


@pytest.mark.slow
async def test_unload_and_load_say_what_they_do(clean):
    async with Clients(clean.url) as clients:
        left, *_ = await two_loaded(clean, clients)
        answer, stream = clients.begin(left, 3000)
        await has_text(answer)

        unloaded = await asyncio.to_thread(clean.cli, "unload", left)

        assert (await stream).is_whole
        assert "unloaded" in unloaded.stdout
        until(lambda: clean.placed()["left"] == [])
        loaded = await asyncio.to_thread(clean.cli, "load", left, "--neuron", "left")
        assert left in loaded.stdout
        until(lambda: clean.placed()["left"] == [left])


@pytest.mark.slow
def test_status_watch_follows_what_changes(clean):
    """On a terminal of its own, as a person has it."""
    inside, outside = pty.openpty()
    command = [sys.executable, "-m", "services.cli", "status", "--watch"]
    environment = {**os.environ, "COLUMNS": "160", "LINES": "50", "TERM": "xterm"}
    watching = subprocess.Popen(
        [*command, "--registry", clean.registries[0]], stdout=outside, env=environment
    )
    os.close(outside)
    seen = ""

    def shows(words, without="\0"):
        """True if the newest whole picture has these words; each begins with the cursor at home."""
        nonlocal seen
        seen += os.read(inside, 65536).decode(errors="replace")
        picture = seen.split("\x1b[H")[-2:][0]
        return words in picture and without not in picture

    try:
        until(lambda: shows("right"))
        assert not shows("cordoned")
        clean.cli("cordon", "right")
        until(lambda: shows("cordoned"))
        clean["registry"].kill()
        until(lambda: shows("This was its last answer"))
        clean["registry"].start()
        until(lambda: shows("cordoned", without="This was its last answer"))
        until(lambda: clean.live() == {"left", "right"})
        assert watching.poll() is None
    finally:
        watching.send_signal(2)
        os.close(inside)
        watching.wait(10)
