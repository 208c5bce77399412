"""The agent on `cortex up`'s real gateway: scripted tool calls, the real model's text."""

import asyncio
from typing import Any

import acp
import acp.schema
import pytest

from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint
from tests.system.local_fleet import RunningFleet

MODEL = "smollm2-135m"
CONFIG = """
default_endpoint = "script"

[[endpoints]]
name = "script"
base_url = "{script}/v1"

[[endpoints]]
name = "cortex"
base_url = "{fleet}/v1"
wire_api = "{wire}"
max_tokens = {tokens}
"""
EDIT = Call(
    "edit_file", {"path": "greeting.txt", "old_text": "world", "new_text": "fleet"}, "call_edit"
)


def configured(
    place: Place, script: ScriptedEndpoint, fleet: RunningFleet, *, wire: str, tokens: int
) -> Any:
    path = place.home / "agent.toml"
    path.write_text(CONFIG.format(script=script.url, fleet=fleet.url, wire=wire, tokens=tokens))
    # The harness describes one endpoint in the environment; here the file describes two.
    return {
        "CORTEX_ACP_CONFIG": str(path),
        "CORTEX_ACP_BASE_URL": "",
        "CORTEX_ACP_WIRE_API": "",
    }


async def ask(running: Any, session_id: str, text: str) -> Any:
    async with asyncio.timeout(100):
        return await running.connection.prompt(session_id=session_id, prompt=[acp.text_block(text)])


async def choose(running: Any, session_id: str, model: str) -> None:
    await running.connection.set_config_option(
        config_id="model", session_id=session_id, value=model
    )


@pytest.mark.real
@pytest.mark.parametrize(
    "wire",
    [
        "openai-chat",
        # the agent's own prompt takes the small model seconds to read, and many on a busy machine
        pytest.param("openai-responses", marks=pytest.mark.slow),
        pytest.param("anthropic-messages", marks=pytest.mark.slow),
    ],
)
async def test_scripted_edits_and_the_real_models_text_share_a_session(
    place: Place, real_fleet: RunningFleet, wire: str
):
    async with ScriptedEndpoint(Answer(calls=[EDIT]), Answer(text="Edited.")) as script:
        environment = configured(place, script, real_fleet, wire=wire, tokens=16)
        async with place.agent(script, EditorDouble(), **environment) as running:
            session = await running.connection.new_session(str(place.project))
            edited = await ask(running, session.session_id, "change the greeting")
            await choose(running, session.session_id, f"cortex:{MODEL}")
            said = await ask(running, session.session_id, "Say hello.")

    options = session.config_options[1].options
    assert f"cortex:{MODEL}" in [option.value for option in options]
    assert "end_turn" == edited.stop_reason
    assert "hello fleet\n" == (place.project / "greeting.txt").read_text()
    assert said.stop_reason in {"end_turn", "max_tokens", "max_turn_requests"}
    assert said.usage.input_tokens > 500
    assert 0 < said.usage.output_tokens
    turns = place.record(session.session_id)["history"]
    assert ["user", "assistant", "results", "assistant", "user", "assistant"] == [
        turn["type"] for turn in turns
    ][:6]


@pytest.mark.real
@pytest.mark.slow
async def test_cancel_and_kill_while_the_real_model_writes(place: Place, real_fleet: RunningFleet):
    async with ScriptedEndpoint(Answer(text="unused")) as script:
        environment = configured(place, script, real_fleet, wire="openai-chat", tokens=2000)
        async with place.agent(script, EditorDouble(), **environment) as running:
            session = await running.connection.new_session(str(place.project))
            await choose(running, session.session_id, f"cortex:{MODEL}")
            telling = asyncio.create_task(
                ask(running, session.session_id, "Tell me a very long story.")
            )
            async with asyncio.timeout(60):
                await running.editor.seen(lambda _: len(running.editor.text()) > 5)
            await running.connection.cancel(session_id=session.session_id)
            cancelled = await telling
            running.editor.updates.clear()
            again = asyncio.create_task(ask(running, session.session_id, "Tell another one."))
            await running.editor.seen(lambda _: len(running.editor.text()) > 5)
            running.process.kill()
            with pytest.raises((ConnectionError, acp.RequestError)):
                await again
        async with place.agent(script, EditorDouble(), **environment) as second:
            loaded = await second.connection.load_session(str(place.project), session.session_id)
            await second.editor.seen(lambda u: isinstance(u, acp.schema.AvailableCommandsUpdate))

    assert "cancelled" == cancelled.stop_reason
    assert f"cortex:{MODEL}" == loaded.config_options[1].current_value
    shown = [type(update).__name__ for update in second.editor.updates]
    assert ["UserMessageChunk", "AgentMessageChunk", "UserMessageChunk"] == shown[:3]
