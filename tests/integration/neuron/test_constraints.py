"""The shape of an answer behind reasoning that the prompt has opened."""

from __future__ import annotations

import json
import re

import pytest

from cortex.v1 import generation_pb2 as generation
from tests.doubles.neuron_host import NeuronHost, chat
from tests.doubles.neuron_transports import answer, session_of
from tests.doubles.vocabulary import CHATML

OPENING = CHATML.replace("assistant\n", "assistant\n<think>\n")
# A pattern with escaped slashes, and one whose class has a slash that none need to be.
URL = r"https?:\/\/[a-z]{2}\/x"
PATH = r"[/]srv[\/]\\[0-9]{1,2}"


def schema(pattern: str) -> str:
    return json.dumps({
        "type": "object",
        "properties": {"at": {"type": "string", "pattern": f"^{pattern}$"}},
        "required": ["at"],
        "additionalProperties": False,
    })  # fmt: skip


@pytest.mark.parametrize("pattern", [URL, PATH])
@pytest.mark.parametrize("kind", ["regex", "json_schema"])
async def test_slashes_of_a_pattern_hold_behind_reasoning(
    host: NeuronHost, kind: str, pattern: str
) -> None:
    # left alone it would say something else than any pattern has
    host.script("thinker", words=("hm", " hm", "</think>", " so"), chat_template=OPENING)
    await host.load("thinker")
    if kind == "regex":
        constraint = generation.OutputConstraint(regex=pattern)
    else:
        constraint = generation.OutputConstraint(json_schema=schema(pattern))
    request = chat(
        model="thinker", constraint=constraint, stop=generation.StopRules(max_tokens=300)
    )

    async with session_of(host) as session:
        made = await answer(session.start(request))

    assert made.error is None
    assert made.reasoning == "hm hm"
    said = made.text if kind == "regex" else json.loads(made.text)["at"]
    assert re.fullmatch(pattern, said), made.text
