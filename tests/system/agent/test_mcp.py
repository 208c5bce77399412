"""Tools that MCP servers of the editor lend."""

import json
import sys

import acp
import acp.schema
import pytest

from tests.system.agent.asking import prompt
from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

MCP_SERVER = """
import os
from mcp.server import MCPServer
from mcp.types import ImageContent

server = MCPServer("weather")


@server.tool()
def forecast(city: str) -> str:
    return f"{os.environ['MOOD']} in {city}"


@server.tool()
def radar() -> ImageContent:
    return ImageContent(type="image", data="aGk=", mimeType="image/png")


@server.tool()
def storm() -> str:
    os._exit(1)


server.run()
"""


async def test_mcp_servers_of_the_editor_lend_their_tools_after_asking(place: Place):
    script = place.home / "weather.py"
    script.write_text(MCP_SERVER)
    servers = [
        acp.schema.McpServerStdio(
            name="weather",
            command=sys.executable,
            args=[str(script)],
            env=[acp.schema.EnvVariable(name="MOOD", value="sunny")],
        ),
        acp.schema.McpServerStdio(name="broken", command="/nonexistent", args=[], env=[]),
        acp.schema.HttpMcpServer(
            type="http", name="gone", url="http://127.0.0.1:1/mcp", headers=[]
        ),
    ]
    call = Call("mcp__weather__forecast", {"city": "Kiel"}, "c1")
    async with (
        ScriptedEndpoint(Answer(calls=[call]), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project), mcp_servers=servers)
        response = await prompt(running, session.session_id)

    assert "end_turn" == response.stop_reason
    assert ["c1"] == [call.tool_call_id for call in running.editor.asked]
    assert "sunny in Kiel" == endpoint.requests[1]["messages"][-1]["content"]
    assert {"broken", "gone"} == {each["server"] for each in place.events("mcp server failed")}


async def test_a_dead_mcp_servers_tools_disappear_and_the_user_is_told(place: Place):
    script = place.home / "weather.py"
    script.write_text(MCP_SERVER)
    server = acp.schema.McpServerStdio(
        name="weather", command=sys.executable, args=[str(script)], env=[]
    )
    storm = Call("mcp__weather__storm", {}, "c1")
    async with (
        ScriptedEndpoint(Answer(calls=[storm]), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project), mcp_servers=[server])
        await prompt(running, session.session_id)

    names = [{t["function"]["name"] for t in each["tools"]} for each in endpoint.requests]
    lent = {"mcp__weather__forecast", "mcp__weather__radar", "mcp__weather__storm"}
    assert lent == names[0] - names[1]
    shown = json.dumps([u.model_dump(mode="json") for u in running.editor.updates])
    assert "the MCP server weather has ended" in shown


@pytest.mark.parametrize(
    ("capabilities", "is_seen"), [(["chat", "tools", "vision"], True), (["chat", "tools"], False)]
)
async def test_a_tools_picture_reaches_models_that_see(
    place: Place, capabilities: list[str], is_seen: bool
):
    script = place.home / "weather.py"
    script.write_text(MCP_SERVER)
    server = acp.schema.McpServerStdio(
        name="weather", command=sys.executable, args=[str(script)], env=[]
    )
    radar = Call("mcp__weather__radar", {}, "c1")
    async with ScriptedEndpoint(Answer(calls=[radar]), Answer(text="Done.")) as endpoint:
        endpoint.capabilities = capabilities
        async with place.agent(endpoint, EditorDouble()) as running:
            session = await running.connection.new_session(str(place.project), mcp_servers=[server])
            await prompt(running, session.session_id)
        async with place.agent(endpoint, EditorDouble()) as second:
            await second.connection.load_session(str(place.project), session.session_id)

    sent = json.dumps(endpoint.requests[1])
    assert is_seen == ("data:image/png;base64,aGk=" in sent)
    assert is_seen != ("a picture, left out" in sent)
    for editor in (running.editor, second.editor):
        contents = [c for u in editor.updates for c in getattr(u, "content", None) or () if u]
        assert "aGk=" in [getattr(getattr(c, "content", None), "data", "") for c in contents]


async def test_the_user_is_told_of_a_server_that_cannot_be_reached(place: Place):
    broken = acp.schema.McpServerStdio(name="broken", command="/nonexistent", args=[], env=[])
    async with (
        ScriptedEndpoint(Answer(text="Hi.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project), mcp_servers=[broken])
        await prompt(running, session.session_id)
        await prompt(running, session.session_id)

    shown = json.dumps([u.model_dump(mode="json") for u in running.editor.updates])
    assert shown.count("The MCP server broken could not be reached") == 1
