"""An agent that crashes in a prompt says where, and nothing of what it was given."""

from __future__ import annotations

import asyncio
import contextlib

import acp
import pytest

from tests.doubles.planted import (
    KEY,
    OUTPUT,
    PROMPT,
    assert_crash_tells_nothing,
    crashing_path,
)
from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint


@pytest.mark.parametrize(
    ("module", "owner", "name"),
    [
        ("services.agent.turn.turn", "PromptTurn", "run"),
        ("services.agent.session_service.prompting", "Prompting", "run"),
        ("services.agent.tools.shell.bash", "Bash", "execute"),
        ("services.agent.storage.store", "SessionStore", "_tidy"),
        ("services.agent.transport", "LineTransport", "_routed"),
    ],
    ids=["turn", "prompt", "tool", "background", "connection"],
)
async def test_a_crash_of_the_agent_tells_no_key_prompt_or_output(
    place: Place, tmp_path, capfd, module, owner, name
):
    site = tmp_path / "site"
    site.mkdir()
    path = crashing_path(site, program="services.agent", module=module, owner=owner, name=name)
    call = Answer(text=OUTPUT, calls=[Call("bash", {"command": f"echo {OUTPUT}"}, "c1")])

    async with ScriptedEndpoint(call, Answer(text=OUTPUT)) as endpoint:
        with contextlib.suppress(acp.RequestError, ConnectionError, TimeoutError):
            async with (
                place.agent(
                    endpoint,
                    EditorDouble(),
                    PYTHONPATH=path,
                    CORTEX_ACP_API_KEY=KEY,
                    CORTEX_ACP_MODE="bypassPermissions",
                ) as running,
                asyncio.timeout(60),
            ):
                session = await running.connection.new_session(str(place.project))
                await running.connection.prompt(
                    session_id=session.session_id, prompt=[acp.text_block(PROMPT)]
                )

    written = (place.home / "state/cortex-acp/acp.log").read_text()
    assert_crash_tells_nothing(written + "".join(capfd.readouterr()))


async def test_an_endpoint_that_quotes_what_it_was_given_is_not_quoted_in_the_log(
    place: Place, capfd
):
    refusal = Answer(status=401, error={"error": {"message": f"{KEY} {PROMPT} {OUTPUT}"}})

    async with (
        ScriptedEndpoint(refusal) as endpoint,
        place.agent(endpoint, EditorDouble(), CORTEX_ACP_API_KEY=KEY) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        with pytest.raises(acp.RequestError):
            await running.connection.prompt(
                session_id=session.session_id, prompt=[acp.text_block(PROMPT)]
            )

    written = (place.home / "state/cortex-acp/acp.log").read_text() + "".join(capfd.readouterr())
    (failed,) = place.events("prompt failed")
    assert failed["status"] == 401
    for secret in (KEY, PROMPT, OUTPUT):
        assert secret not in written
