"""Sessions: what is offered, stored, loaded, forked, taken back and deleted."""

import asyncio
import json
from typing import Any

import acp
import acp.schema
import pytest

from tests.system.agent.asking import EDIT, prompt
from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint


async def test_the_users_turn_is_on_disk_before_the_model_is_asked(place: Place):
    hold = asyncio.Event()
    async with (
        ScriptedEndpoint(Answer(text="Hi.", hold_before=hold)) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        asking = asyncio.create_task(prompt(running, session.session_id, "are you there?"))
        await endpoint.requested(1)
        stored = place.record(session.session_id)["history"]
        hold.set()
        await asking

    assert "are you there?" == stored[0]["parts"][0]["text"]


async def test_the_history_and_its_plan_are_shown_before_load_answers(place: Place):
    order: list[str] = []

    def observe(event: Any) -> None:
        message = event.message
        if event.direction.value == "incoming":
            kind = message.get("params", {}).get("update", {}).get("sessionUpdate", "response")
            order.append(kind)

    plan = Call("update_plan", {"steps": [{"content": "look", "status": "completed"}]}, "c1")
    async with ScriptedEndpoint(Answer(text="Plan.", calls=[plan]), Answer(text="Hi.")) as endpoint:
        async with place.agent(endpoint, EditorDouble()) as running:
            session = await running.connection.new_session(f"{place.project}/")
            await prompt(running, session.session_id)
        async with place.agent(endpoint, EditorDouble()) as loading:
            listed = await loading.connection.list_sessions(cwd=f"{place.project}/")
            loading.connection._conn.add_observer(observe)
            await loading.connection.load_session(str(place.project), session.session_id)

    first, *_, last = [m for m in running.editor.updates if hasattr(m, "message_id")]
    assert [session.session_id] == [each.session_id for each in listed.sessions]
    assert [
        "user_message_chunk", "agent_message_chunk", "tool_call", "tool_call_update",
        "agent_message_chunk", "plan", "available_commands_update", "response",
    ] == order  # fmt: skip
    assert first.message_id
    assert last.message_id
    assert first.message_id != last.message_id


async def test_a_fork_has_the_history_and_the_commands_of_a_session(place: Place):
    def offers_commands(update: Any) -> bool:
        return isinstance(update, acp.schema.AvailableCommandsUpdate)

    async with (
        ScriptedEndpoint(Answer(text="Hi."), Answer(text="Again.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id, "remember the ducks")
        await running.editor.seen(offers_commands)
        running.editor.updates.clear()

        fork = await running.connection.fork_session(
            cwd=str(place.project), session_id=session.session_id
        )

        await running.editor.seen(offers_commands)
        await prompt(running, fork.session_id)
    assert fork.session_id != session.session_id
    assert "remember the ducks" in json.dumps(endpoint.requests[-1])


async def test_modes_models_and_options_are_kept(place: Place):
    async with ScriptedEndpoint(Answer(text="Hi.")) as endpoint:
        async with place.agent(endpoint, EditorDouble()) as running:
            session = await running.connection.new_session(str(place.project))
            await running.connection.set_config_option(
                config_id="mode", session_id=session.session_id, value="accept-edits"
            )
            await running.connection.set_config_option(
                config_id="model", session_id=session.session_id, value="cortex:other"
            )
            with pytest.raises(acp.RequestError):
                await running.connection.set_session_mode(
                    session_id=session.session_id, mode_id="yolo"
                )
            await running.connection.set_config_option(
                config_id="model", session_id=session.session_id, value="llama3:8b"
            )
            await prompt(running, session.session_id)
        async with place.agent(endpoint, EditorDouble()) as second:
            resumed = await second.connection.resume_session(
                cwd=str(place.project), session_id=session.session_id
            )

    assert "scripted" == session.config_options[1].current_value.split(":")[1]
    assert "llama3:8b" == endpoint.requests[0]["model"]
    assert "accept-edits" == resumed.modes.current_mode_id
    values = [option.current_value for option in resumed.config_options[:2]]
    assert ["accept-edits", "cortex:llama3:8b"] == values


async def test_initialize_offers_only_what_there_is(place: Place):
    async with (
        ScriptedEndpoint(Answer()) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        can: Any = running.initialized.agent_capabilities
        with pytest.raises(acp.RequestError, match="Method not found"):
            await running.connection._conn.send_request("session/teleport", {})
        with pytest.raises(acp.RequestError):
            await running.connection.new_session("relative/path")
        with pytest.raises(acp.RequestError):
            await running.connection.load_session(str(place.project), "../../etc/passwd")
        with pytest.raises(acp.RequestError, match="Invalid params"):
            await running.connection.new_session("/nowhere/at/all")

    assert 1 == running.initialized.protocol_version
    assert can.load_session
    assert (True, False, True) == (
        can.prompt_capabilities.image,
        can.prompt_capabilities.audio,
        can.prompt_capabilities.embedded_context,
    )
    assert can.session_capabilities.list is not None
    assert can.session_capabilities.resume is not None
    assert can.session_capabilities.delete is not None


@pytest.mark.parametrize(
    ("capabilities", "can_see"), [(["chat"], False), (["chat", "vision"], True)]
)
async def test_pictures_are_asked_for_only_where_a_model_sees(
    place: Place, capabilities: list[str], can_see: bool
):
    async with ScriptedEndpoint(Answer()) as endpoint:
        endpoint.capabilities, endpoint.others = capabilities, ()
        async with place.agent(endpoint, EditorDouble()) as running:
            can: Any = running.initialized.agent_capabilities

    assert can_see == can.prompt_capabilities.image


async def test_a_deleted_session_is_gone(place: Place):
    async with (
        ScriptedEndpoint(Answer(text="Hi.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)
        send = running.connection._conn.send_request
        for _ in range(2):  # the second one finds nothing, and that is no error
            await send("session/delete", {"sessionId": session.session_id})
        listed = await running.connection.list_sessions()
        with pytest.raises(acp.RequestError):
            await running.connection.load_session(str(place.project), session.session_id)

    assert [] == listed.sessions
    assert [] == list((place.home / "data/cortex-acp/sessions").iterdir())


async def test_undo_and_rewind_take_back_files_and_history(place: Place):
    new = Call("write_file", {"path": "new.txt", "content": "x"}, "c2")
    rounds = [Answer(calls=[EDIT]), Answer(text="Edited."), Answer(calls=[new])]
    answers = [*rounds, Answer(text="Written."), Answer(text="Talked.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        for text in ("edit", "write", "talk"):
            await prompt(running, session.session_id, text)
        await prompt(running, session.session_id, "/undo")
        is_kept = (place.project / "new.txt").exists()
        await prompt(running, session.session_id, "/rewind 2")
        await prompt(running, session.session_id, "/undo")

    assert is_kept
    assert ["greeting.txt"] == [each.name for each in place.project.iterdir()]
    assert "hello world\n" == (place.project / "greeting.txt").read_text()
    assert [] == place.record(session.session_id)["history"]
    assert "2 prompts taken back." in running.editor.text()
    assert running.editor.text().endswith("There is nothing to take back.")


async def test_a_projects_own_command_gives_no_orders_and_loses_no_picture(place: Place):
    (place.project / ".agents/commands").mkdir(parents=True)
    for name, text in {"greet": "/rewind 50", "rewind": "Forget that."}.items():
        (place.project / f".agents/commands/{name}.md").write_text(text)
    picture = acp.image_block("aGk=", "image/png")
    async with (
        ScriptedEndpoint(Answer(text="One."), Answer(text="Two.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id, "first")
        blocks = [acp.text_block("/greet"), picture]
        await running.connection.prompt(session_id=session.session_id, prompt=blocks)
        kept = endpoint.requests[-1]["messages"]
        await prompt(running, session.session_id, "/rewind 2")

    assert "first" == kept[1]["content"]
    assert ["text", "image_url"] == [part["type"] for part in kept[-1]["content"]]
    assert "/rewind 50" == kept[-1]["content"][0]["text"]
    assert "2 prompts taken back." in running.editor.text()


async def test_a_projects_own_command_is_offered_and_asked(place: Place):
    (place.project / ".agents/commands").mkdir(parents=True)
    (place.project / ".agents/commands/greet.md").write_text("Greet $1 warmly.")
    async with (
        ScriptedEndpoint(Answer(text="Hi.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        offered = await running.editor.seen(
            lambda u: isinstance(u, acp.schema.AvailableCommandsUpdate)
        )
        await prompt(running, session.session_id, "/greet Ann")

    assert "greet" in [each.name for each in offered.available_commands]
    assert "Greet Ann warmly." == endpoint.requests[0]["messages"][-1]["content"]
