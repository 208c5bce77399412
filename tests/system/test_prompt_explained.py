"""Prompts of Claude Code through the whole fleet with the real model: what is read twice, and why."""

from __future__ import annotations

import copy
import json
import pathlib
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.system.local_fleet import RunningFleet

pytestmark = pytest.mark.real

# As Claude Code sends it: a first block that changes with each request, marks that roll on.
MARK = {"cache_control": {"type": "ephemeral"}}
BODY: dict[str, Any] = {
    "model": "smollm2-135m",
    "max_tokens": 4,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330.572;"},
        {"type": "text", "text": "You are an agent. Work step by step. " * 20, **MARK},
    ],
    "tools": [
        {"name": "Edit", "description": "Edits a file.", "input_schema": {"type": "object"}},
        {"name": "Bash", "description": "Runs a command.", "input_schema": {"type": "object"}},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Say hello to everybody.", **MARK}]}
    ],
}


def send(fleet: RunningFleet, body: dict[str, Any]) -> dict[str, int]:
    answer = httpx.post(f"{fleet.url}/v1/messages", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    usage: dict[str, int] = answer.json()["usage"]
    return usage


def explain(fleet: RunningFleet, body: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "request.json"
    path.write_text(json.dumps(body))
    command = [sys.executable, "-m", "services.cli", "explain", "--request", str(path)]
    done = subprocess.run(
        [*command, "--gateway", fleet.url, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (found,) = json.loads(done.stdout)["instances"]
    return dict(found)


def changed() -> dict[str, Any]:
    """What clients change for no reason: the first block, where marks are, the order of tools."""
    body = copy.deepcopy(BODY)
    body["system"][0]["text"] = "x-anthropic-billing-header: cc_version=2.1.331.001;"
    del body["system"][1]["cache_control"]
    body["tools"].reverse()
    return body


def test_a_changing_first_block_marks_and_reordered_tools_break_nothing(
    real_fleet: RunningFleet, tmp_path: pathlib.Path
) -> None:
    send(real_fleet, BODY)

    told = explain(real_fleet, changed(), tmp_path)
    usage = send(real_fleet, changed())

    assert told["tokens_to_read"] <= 1
    assert usage["cache_read_input_tokens"] >= told["prompt_tokens"] - 1


def test_the_bytes_that_broke_a_prefix_are_named(
    real_fleet: RunningFleet, tmp_path: pathlib.Path
) -> None:
    send(real_fleet, BODY)
    body = copy.deepcopy(BODY)
    body["messages"][0]["content"][0]["text"] = "Say hello to nobody."

    told = explain(real_fleet, body, tmp_path)

    assert 0 < told["tokens_to_read"] < 60
    parts = told["parts_at"]
    assert parts["segment"].endswith("user")
    assert parts["byte"] == len("Say hello to")
    assert parts["asked"].startswith(" nobody")
    assert parts["held"].startswith(" everybody")
    assert send(real_fleet, body)["cache_read_input_tokens"] == told["cached_tokens"]


def test_a_file_that_is_no_request_is_refused_in_words(
    real_fleet: RunningFleet, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "r.json").write_text("[]")
    command = [sys.executable, "-m", "services.cli", "explain", "--request"]

    done = subprocess.run(
        [*command, str(tmp_path / "r.json"), "--gateway", real_fleet.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert "messages" in done.stderr + done.stdout
