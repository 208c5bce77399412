"""Tools that MCP servers of the editor lend."""

import asyncio
import json
import os
import signal
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


if os.environ.get("PID_FILE"):
    with open(os.environ["PID_FILE"], "w") as file:
        file.write(str(os.getpid()))

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


async def test_a_server_that_dies_between_prompts_is_missed_before_the_next_one(place: Place):
    script = place.home / "weather.py"
    pids = place.home / "pid"
    script.write_text(MCP_SERVER)
    server = acp.schema.McpServerStdio(
        name="weather",
        command=sys.executable,
        args=[str(script)],
        env=[acp.schema.EnvVariable(name="PID_FILE", value=str(pids))],
    )
    async with (
        ScriptedEndpoint(Answer(text="Hi."), Answer(text="Well."), Answer(text="So.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project), mcp_servers=[server])
        await prompt(running, session.session_id)
        os.kill(int(pids.read_text()), signal.SIGKILL)
        await prompt(running, session.session_id)
        await prompt(running, session.session_id)

    lent = [{t["function"]["name"] for t in each["tools"]} for each in endpoint.requests]
    assert "mcp__weather__forecast" in lent[0]
    assert "mcp__weather__forecast" not in lent[1]
    shown = json.dumps([u.model_dump(mode="json") for u in running.editor.updates])
    assert 1 == shown.count("The MCP server weather has ended")


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


PAGED_SERVER = """
import json, os, sys

PAGES = {None: (["one", "o.ne"], "2"), "2": (["two", "one"], None)}
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                  "serverInfo": {"name": "x", "version": "1"}}
    elif asked["method"] == "tools/list":
        names, cursor = PAGES[(asked.get("params") or {}).get("cursor")]
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
        result = {"tools": tools} | ({"nextCursor": cursor} if cursor else {})
    elif asked["method"] == "tools/call":
        text = os.environ["WHO"] + " " + asked["params"]["name"]
        result = {"content": [{"type": "text", "text": text}]}
    elif asked["method"] == "ping" and os.environ["WHO"] == "b" and sys.argv[1:]:
        if sys.argv[1] == "dies":
            os._exit(1)
        continue
    elif "id" in asked:
        error = {"code": -32601, "message": "no such method"}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}), flush=True)
        continue
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


def paged(place: Place, who: str, *, name: str = "x", ping: str = "") -> acp.schema.McpServerStdio:
    script = place.home / "paged.py"
    script.write_text(PAGED_SERVER)
    variables = [acp.schema.EnvVariable(name="WHO", value=who)]
    arguments = [str(script), *([ping] if ping else [])]
    return acp.schema.McpServerStdio(
        name=name, command=sys.executable, args=arguments, env=variables
    )


async def test_servers_of_one_name_are_told_apart_and_lists_are_read_to_their_end(place: Place):
    calls = [Call("mcp__x__two", {}, "c1"), Call("mcp__x-2__one", {}, "c2")]
    async with (
        ScriptedEndpoint(Answer(calls=calls), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        servers = [paged(place, "a"), paged(place, "b")]
        session = await running.connection.new_session(str(place.project), mcp_servers=servers)
        await prompt(running, session.session_id)

    sent, answered = endpoint.requests
    lent = [t["function"] for t in sent["tools"] if t["function"]["name"].startswith("mcp__")]
    names = [each["name"] for each in lent]
    assert len(set(names)) == len(names) == 6
    assert {"mcp__x__one", "mcp__x__two", "mcp__x-2__one", "mcp__x-2__two"} < set(names)
    assert all(each["parameters"] == {"type": "object", "properties": {}} for each in lent)
    assert ["a two", "b one"] == [m["content"] for m in answered["messages"][-2:]]


@pytest.mark.parametrize("ping", ["dies", "hangs"])
async def test_a_server_that_takes_no_ping_does_not_harm_the_other(place: Place, ping: str):
    servers = [paged(place, "a", name="a"), paged(place, "b", name="b", ping=ping)]
    call = Call("mcp__a__one", {}, "c1")
    async with (
        ScriptedEndpoint(Answer(calls=[call]), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project), mcp_servers=servers)
        await prompt(running, session.session_id)

    assert "a one" == endpoint.requests[1]["messages"][-1]["content"]
    for request in endpoint.requests:
        lent = {t["function"]["name"] for t in request["tools"]}
        assert "mcp__a__one" in lent
        assert (ping == "hangs") == ("mcp__b__one" in lent)
    shown = json.dumps([u.model_dump(mode="json") for u in running.editor.updates])
    assert (ping == "dies") == ("The MCP server b has ended" in shown)


HTTP_SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sessions = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {**headers, "content-length": len(body)}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(405)

    do_DELETE = do_GET

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method = asked["method"]
        results = {
            "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                           "serverInfo": {"name": "x", "version": "1"}},
            "tools/list": {"tools": [{"name": "one", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [{"type": "text", "text": f"session {len(sessions)}"}]},
            "ping": {},
        }
        if method == "initialize":
            sessions.append(f"s{len(sessions)}")
        elif os.path.exists(sys.argv[1]):
            os.unlink(sys.argv[1])
            sessions.append("none")
        if method != "initialize" and sessions and self.headers["mcp-session-id"] != sessions[-1]:
            return self.answer(404)
        if "id" not in asked:
            return self.answer(202)
        result = {"result": results[method]} if method in results else {
            "error": {"code": -32601, "message": "no such method"}}
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], **result}).encode()
        self.answer(200, body, content_type="application/json", mcp_session_id=sessions[-1:] and sessions[-1])


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_session_that_an_http_server_has_ended_is_begun_anew(place: Place, is_killed: bool):
    script, ended = place.home / "http_server.py", place.home / "ended"
    script.write_text(HTTP_SERVER)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(ended), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = f"http://127.0.0.1:{int(await process.stdout.readline())}/mcp"
    server = acp.schema.HttpMcpServer(type="http", name="web", url=url, headers=[])
    call, done = Answer(calls=[Call("mcp__web__one", {}, "c1")]), Answer(text="Done.")
    try:
        async with (
            ScriptedEndpoint(call, done, call, done) as endpoint,
            place.agent(endpoint, EditorDouble()) as running,
        ):
            session = await running.connection.new_session(str(place.project), mcp_servers=[server])
            await prompt(running, session.session_id)
            if is_killed:
                process.kill()
            else:
                ended.touch()
            await prompt(running, session.session_id)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()

    results = [m["content"] for m in endpoint.requests[-1]["messages"] if m["role"] == "tool"]
    shown = json.dumps([u.model_dump(mode="json") for u in running.editor.updates])
    assert is_killed == ("The MCP server web could not be reached" in shown)
    assert "session 1" == results[0]
    assert ("there is no tool" if is_killed else "session 3") in results[1]
