"""A gateway that crashes in a request says where, and nothing of what it was given."""

from __future__ import annotations

import pytest

from services.gateway.auth.auth import Auth
from services.gateway.dialects.openai_chat import decode, encode
from services.gateway.dialects.openai_chat.stream import ChatProjector
from services.gateway.routing.dispatch import Dispatch
from tests.doubles.planted import KEY, OUTPUT, PROMPT, assert_crash_tells_nothing, crash, logged
from tests.doubles.scripted_neuron import Script, text
from tests.integration.gateway.fleet import Fleet, chat_body


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Auth, "holder"),
        (decode, "decode"),
        (Dispatch, "generate"),
        (encode, "body"),
        (ChatProjector, "event"),
    ],
    ids=["key", "body", "dispatch", "answer", "stream"],
)
async def test_a_crash_tells_no_key_prompt_or_output(
    fleet: Fleet, owner, name, form, monkeypatch, capfd
):
    await fleet.add_neuron("n1", Script([text(OUTPUT)]))
    monkeypatch.setattr(owner, name, crash)
    body = chat_body(messages=[{"role": "user", "content": PROMPT}], stream=owner is ChatProjector)
    headers = {"authorization": f"Bearer {KEY}"}

    with logged(form, "gateway") as log:
        await fleet.client.post("/v1/chat/completions", json=body, headers=headers)

    assert_crash_tells_nothing(log.getvalue() + "".join(capfd.readouterr()))
