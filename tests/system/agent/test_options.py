"""What an editor may set in a session, and what the model's endpoint hears of it."""

import asyncio
import json
import socket
from typing import Any, Self

import acp
import acp.schema
import pytest
from typing_extensions import override

from tests.system.agent.asking import prompt
from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, ScriptedEndpoint

REFUSAL = {"message": "scripted does not support tools", "type": "invalid_request_error"}


async def choose(running: Any, session_id: str, config_id: str, value: str) -> Any:
    return await running.connection.set_config_option(
        config_id=config_id, session_id=session_id, value=value
    )


async def test_thinking_and_sampling_are_kept_with_the_session_and_sent(place: Place):
    async with ScriptedEndpoint(Answer(text="Hi.")) as endpoint:
        async with place.agent(endpoint, EditorDouble()) as running:
            session = await running.connection.new_session(str(place.project))
            await prompt(running, session.session_id)
            await choose(running, session.session_id, "effort", "low")
            changed = await choose(running, session.session_id, "temperature", "0.2")
        async with place.agent(endpoint, EditorDouble()) as second:
            await second.connection.resume_session(
                cwd=str(place.project), session_id=session.session_id
            )
            await prompt(second, session.session_id)
            fork = await second.connection.fork_session(
                cwd=str(place.project), session_id=session.session_id
            )

    first, last = endpoint.requests
    assert not {"temperature", "top_p", "reasoning_effort"} & first.keys()
    assert ("low", 0.2) == (last["reasoning_effort"], last["temperature"])
    assert "top_p" not in last
    for options in (changed.config_options, fork.config_options):
        assert ["low", "0.2", "default"] == [each.current_value for each in options[2:]]
    categories = [each.category for each in changed.config_options]
    assert ["mode", "model", "thought_level", "model_config", "model_config"] == categories


async def test_what_is_not_offered_is_refused_and_changes_nothing(place: Place):
    wrong: list[tuple[str, Any]] = [
        ("mode", "yolo"), ("model", "cortex:nobody"), ("model", True), ("effort", "heroic"),
        ("temperature", "9"), ("mood", "good"),
    ]  # fmt: skip
    async with (
        ScriptedEndpoint(Answer(text="Hi.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        before = place.record(session.session_id)
        for config_id, value in wrong:
            with pytest.raises(acp.RequestError) as caught:
                await choose(running, session.session_id, config_id, value)
            assert caught.value.code == -32602
            assert str(value) in str(caught.value.data) or config_id in str(caught.value.data)

    assert before == place.record(session.session_id)


async def test_native_tools_are_tried_again_after_a_change_of_model(place: Place):
    answers = [Answer(status=400, error=REFUSAL)] + [Answer(text="Hi.")] * 4
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)
        await prompt(running, session.session_id)
        await choose(running, session.session_id, "model", "cortex:other")
        await prompt(running, session.session_id)
        await choose(running, session.session_id, "model", "cortex:scripted")
        await prompt(running, session.session_id)

    natives = ["tools" in request for request in endpoint.requests]
    assert [True, False, False, True, True] == natives
    thoughts = [u for u in running.editor.updates if isinstance(u, acp.schema.AgentThoughtChunk)]
    (told,) = (each.content.text for each in thoughts)
    assert "does not support tools" in told
    assert "tools are described in the text instead" in told


async def test_an_endpoint_that_lists_no_tools_is_asked_in_text_at_once(place: Place):
    async with ScriptedEndpoint(Answer(text="Hi.")) as endpoint:
        endpoint.capabilities = ["chat", "completion"]
        async with place.agent(endpoint, EditorDouble()) as running:
            session = await running.connection.new_session(str(place.project))
            await prompt(running, session.session_id)
            await prompt(running, session.session_id)

    assert ["tools" in request for request in endpoint.requests] == [False, False]
    assert "<tools>" in endpoint.requests[0]["messages"][0]["content"]
    shown = json.dumps([u.model_dump(mode="json") for u in running.editor.updates])
    assert shown.count("takes no tools, as its endpoint says") == 1


async def test_models_are_offered_once_the_gateway_is_back(place: Place):
    class Away(ScriptedEndpoint):
        """Nobody listens at its address before it is entered."""

        port = 0

        @property
        @override
        def url(self) -> str:
            return f"http://127.0.0.1:{self.port}"

        @override
        async def __aenter__(self) -> Self:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            return self

    endpoint = Away(Answer(text="Hi."))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint.port = free.getsockname()[1]
    async with place.agent(endpoint, EditorDouble()) as running:
        session = await running.connection.new_session(str(place.project))
        with pytest.raises(acp.RequestError) as caught:
            await prompt(running, session.session_id)
        async with endpoint:
            update = await running.editor.seen(
                lambda each: isinstance(each, acp.schema.ConfigOptionUpdate)
            )
            response = await prompt(running, session.session_id)

    assert endpoint.url in str(caught.value.data)
    assert "model" not in [each.id for each in session.config_options]
    (offered,) = (each for each in update.config_options if each.id == "model")
    assert ["cortex:scripted", "cortex:other"] == [each.value for each in offered.options[:2]]
    assert "end_turn" == response.stop_reason
