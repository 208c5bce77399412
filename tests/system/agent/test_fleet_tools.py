"""Tools for operators: a real gateway before a real registry, through the whole agent."""

import asyncio
import pathlib
from typing import Any

import acp
import acp.schema
import pytest

from services.gateway.settings import AuthSettings
from tests.doubles.registry_neuron import MIB, ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import document, running_fleet
from tests.integration.gateway.fleet import Fleet
from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

MODELS = """
[[models]]
id = "a"
source = "path:/a"
memory = "10MiB"
[[models]]
id = "b/c"
source = "path:/b"
memory = "10MiB"
"""
TOOLS = {"fleet_status", "explain", "load", "drain"}
CALLS = [
    Call("fleet_status", {}, "c1"),
    Call("explain", {"model": "b/c"}, "c2"),
    Call("load", {"model": "b/c"}, "c3"),
    Call("fleet_status", {}, "c4"),
    Call("load", {"model": "unheard-of"}, "c5"),
    Call("drain", {"neuron": "one"}, "c6"),
]


@pytest.fixture
async def operated(tmp_path: pathlib.Path) -> Any:
    """A gateway, the registry behind it, and one neuron."""
    (tmp_path / "registry").mkdir()
    async with running_fleet(document(tmp_path / "registry", MODELS)) as registry:
        neuron = ScriptedNeuron("one", capacity=15 * MIB)
        await registry.add(neuron)
        gateway = Fleet()
        gateway.registry.address = registry.address
        await gateway.start_gateway(AuthSettings())
        try:
            yield str(gateway.client.base_url), neuron
        finally:
            await gateway.stop()


def switched_on(place: Place, url: str) -> dict[str, Any]:
    path = place.home / "agent.toml"
    path.write_text(f'[fleet]\nurl = "{url}"\n[[endpoints]]\n')
    return {"CORTEX_ACP_CONFIG": str(path)}


async def prompt(running: Any, session_id: str) -> Any:
    async with asyncio.timeout(60):
        return await running.connection.prompt(
            session_id=session_id, prompt=[acp.text_block("tidy the fleet")]
        )


def results(request: dict[str, Any]) -> list[str]:
    return [each["content"] for each in request["messages"] if each["role"] == "tool"]


def offered(request: dict[str, Any]) -> set[str]:
    return TOOLS & {tool["function"]["name"] for tool in request["tools"]}


async def test_an_operators_model_looks_loads_and_drains_after_asking(place: Place, operated: Any):
    url, neuron = operated
    async with (
        ScriptedEndpoint(Answer(calls=CALLS), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble(), **switched_on(place, url)) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    before, explained, loaded, after, unknown, drained = results(endpoint.requests[1])
    assert offered(endpoint.requests[0]) == TOOLS
    assert [f"c{n}" for n in range(1, 7)] == [each.tool_call_id for each in running.editor.asked]
    assert before.startswith("one: ready; ")
    assert "Not loaded: a, b/c" in before
    assert "b/c: " in explained
    assert "- one would fit" in explained
    assert "loaded on one as" in loaded
    assert "  b/c: ready; 0 of" in after
    assert "ERROR: " in unknown
    assert "unheard-of" in unknown
    assert "0 instances and 0 requests left\ndone" in drained
    assert neuron.loaded() == []


async def test_a_cancelled_load_is_given_up(place: Place, operated: Any):
    url, neuron = operated
    neuron.script("a").gate.clear()
    load = Call("load", {"model": "a"}, "c1")
    async with (
        ScriptedEndpoint(Answer(calls=[load])) as endpoint,
        place.agent(endpoint, EditorDouble(), **switched_on(place, url)) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        asking = asyncio.create_task(prompt(running, session.session_id))
        await running.editor.seen(lambda u: "loads on one" in str(getattr(u, "content", "")))
        await running.connection.cancel(session_id=session.session_id)
        response = await asking
        await eventually(lambda: neuron.cancelled_loads == ["a"])

    assert "cancelled" == response.stop_reason


@pytest.mark.parametrize("mode", ["plan", "accept-edits"])
async def test_a_grant_covers_one_order_and_plan_mode_none(place: Place, operated: Any, mode: str):
    async def always(_: acp.schema.ToolCallUpdate) -> str | None:
        return "allow-always"

    url, neuron = operated
    calls = [Call("load", {"model": name}, f"c{n}") for n, name in enumerate(["a", "a", "b/c"])]
    async with (
        ScriptedEndpoint(Answer(calls=calls), Answer(text="Done.")) as endpoint,
        place.agent(
            endpoint, EditorDouble(always), CORTEX_ACP_MODE=mode, **switched_on(place, url)
        ) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    asked = [each.tool_call_id for each in running.editor.asked]
    is_planning = mode == "plan"
    assert ([] if is_planning else ["c0", "c2"]) == asked
    assert ([] if is_planning else ["b/c"]) == neuron.loaded()
    assert is_planning == ("load" not in offered(endpoint.requests[0]))


async def test_without_the_setting_there_are_no_such_tools(place: Place):
    async with (
        ScriptedEndpoint(Answer(text="Hi.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    assert set() == offered(endpoint.requests[0])


async def test_a_gateway_that_is_away_is_named(place: Place):
    away = switched_on(place, "http://127.0.0.1:1")
    async with (
        ScriptedEndpoint(Answer(calls=CALLS[:3]), Answer(text="Then not.")) as endpoint,
        place.agent(endpoint, EditorDouble(), **away) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    told = results(endpoint.requests[1])
    assert ["the gateway at http://127.0.0.1:1 failed" in each for each in told] == [True] * 3
