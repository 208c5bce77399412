"""Digests of a prompt's beginnings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.anthropic_messages.decode import decode
from services.gateway.dialects.dialect import Head
from services.gateway.routing.prefix import MOST_DIGESTS, Trail, trail_of

EDIT = {"name": "Edit", "input_schema": {"type": "object"}}
BASH = {"name": "Bash", "input_schema": {"type": "object"}}
FIRST = {"role": "user", "content": [{"type": "text", "text": "Say hello"}]}
CALL = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}],
}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "42"}


def claude_code(
    *messages: dict[str, Any], version: str = "1", tools: list[Any] | None = None, who: str = "ann"
) -> list[bytes]:
    """As Claude Code sends it (shared facts: its first block and its cache marks change)."""
    billing = f"x-anthropic-billing-header: cc_version={version};"
    system = [{"type": "text", "text": billing}, {"type": "text", "text": "You are an agent."}]
    body = {
        "model": "m",
        "max_tokens": 1,
        "system": system,
        "tools": tools or [BASH, EDIT],
        "messages": messages,
    }
    head = Head("r", {"anthropic-beta": "any"}, {}, 0)
    (request,) = decode(json.dumps(body).encode(), head).requests
    request.principal = who
    return trail_of(request, "m").turns


def test_a_turn_more_has_the_digests_of_the_turns_before() -> None:
    before = claude_code(FIRST)
    marked = {**RESULT, "cache_control": {"type": "ephemeral"}}

    after = claude_code(FIRST, CALL, {"role": "user", "content": [marked]})
    later = claude_code(
        FIRST, CALL, {"role": "user", "content": [RESULT]}, {"role": "assistant", "content": "ok"}
    )

    assert after[: len(before)] == before
    assert later[: len(after)] == after


@pytest.mark.parametrize(
    "changed", [{"version": "2"}, {"tools": [EDIT, BASH]}], ids=["first block", "order of tools"]
)
def test_what_clients_change_for_no_reason_changes_no_digest(changed: dict[str, Any]) -> None:
    assert claude_code(FIRST, **changed) == claude_code(FIRST)


@pytest.mark.parametrize("changed", [{"who": "bob"}, {"tools": [EDIT]}], ids=["principal", "tools"])
def test_other_principals_and_other_beginnings_share_no_digest(changed: dict[str, Any]) -> None:
    assert not {*claude_code(FIRST, **changed)} & {*claude_code(FIRST)}


def test_system_turns_alone_make_no_home() -> None:
    two = [claude_code({"role": "user", "content": text}) for text in ("one", "two")]

    assert not {*two[0]} & {*two[1]}


def test_raw_text_and_tokens_are_found_by_their_longer_half() -> None:
    text = generation.GenerateRequest(text="a" * 8192)
    longer = generation.GenerateRequest(text="a" * 8192 + "b" * 100)
    ids = generation.GenerateRequest(token_ids=generation.TokenIds(ids=range(3000)))

    assert trail_of(text, "m").turns[-1] in trail_of(longer, "m").turns
    assert trail_of(text, "m") != trail_of(text, "n")
    assert len(trail_of(ids, "m").turns) == 2


def test_the_digests_of_one_prompt_are_bounded() -> None:
    endless = [{"role": "user", "content": str(turn)} for turn in range(500)]

    found = claude_code(*endless)

    assert len(found) == MOST_DIGESTS
    assert found[0] == claude_code(endless[0])[0]
    assert found[-1] == claude_code(*endless[:-1], endless[-1])[-1]


def test_a_picture_counts_by_its_length_and_its_ends() -> None:
    def with_picture(data: bytes) -> Trail:
        request = generation.GenerateRequest()
        message = request.chat.messages.add(role=2)
        message.parts.add().image.data = data
        return trail_of(request, "m")

    big = b"\0" * (2 << 20)
    assert with_picture(big) != with_picture(big + b"\0")
    assert with_picture(big) != with_picture(big[:-1] + b"\1")
