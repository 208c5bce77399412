"""`cortex keys` as processes before a real registry: what they print is what is so."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys

import pytest

from services.gateway.settings import ApiKey, AuthSettings
from tests.doubles.registry_stand_ins import document, running_fleet
from tests.integration.gateway.fleet import Fleet

FORM = re.compile(r"^ctx_[0-9a-z]{10}_[0-9A-Za-z]{38}$", re.MULTILINE)


@pytest.fixture
async def cortex(tmp_path):
    """Runs `cortex keys …`; what it writes on standard output, and its exit code."""
    async with running_fleet(document(tmp_path)) as fleet:

        async def ran(*words: str) -> tuple[str, int]:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.cli", "keys", *words),
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "COLUMNS": "200", "CORTEX_REGISTRY_ADDRESS": fleet.address},
            )
            output, _ = await process.communicate()
            return output.decode(), process.returncode or 0

        yield ran


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_key_from_making_it_to_taking_it_back(cortex):
    group, _ = await cortex("groups", "set", "team", "--model", "tiny*", "--json")
    made, _ = await cortex(
        *("create", "laptop", "--principal", "ann", "--group", "team", "--expires", "90d"),
        *("--limit", "requests_per_minute=60", "--highest-class", "default"),
    )
    shown = json.loads((await cortex("show", "laptop", "--json"))[0])
    rotated = json.loads((await cortex("rotate", "laptop", "--overlap", "1h", "--json"))[0])
    listed, _ = await cortex("list")
    revoked, _ = await cortex("revoke", shown["id"])
    left = json.loads((await cortex("list", "--json"))[0])
    ended, _ = await cortex("list", "--all")
    _, refused = await cortex("rotate", "laptop")
    _, mistyped = await cortex("create", "b", "--limit", "requests=1")

    assert ["tiny*"] == json.loads(group)["scopes"]["models"]
    assert FORM.search(made)
    assert ("ann", "team", 60) == (
        shown["principal"],
        shown["group"],
        shown["limits"]["requests_per_minute"],
    )
    assert FORM.search(rotated["secret"])
    assert rotated["secret"] not in made
    assert "good until" in listed
    assert f"({shown['id']}) is revoked" in revoked
    assert [] == left["keys"]
    assert "revoked" in ended
    assert (1, 2) == (refused, mistyped)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_same_over_http_at_a_gateway(tmp_path):
    async with running_fleet(document(tmp_path)) as registry:
        fleet = Fleet()
        fleet.registry.address = registry.address
        await fleet.start_gateway(AuthSettings(keys=(ApiKey("root", key="sk-r", console="admin"),)))
        url = f"http://{fleet.gateway.address}"

        async def cortex(*words: str, key: str = "sk-r") -> tuple[str, int]:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.cli", "keys", "--gateway", url),
                *("--api-key", key, *words),
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "COLUMNS": "200", "CORTEX_REGISTRY_ADDRESS": "127.0.0.1:1"},
            )
            output, _ = await process.communicate()
            return output.decode(), process.returncode or 0

        try:
            group, _ = await cortex("groups", "set", "team", "--dialect", "ollama", "--json")
            made, _ = await cortex("create", "a b", "--group", "team", "--expires", "1d")
            rotated, _ = await cortex("rotate", "a b", "--overlap", "0s")
            shown = json.loads((await cortex("show", "a b", "--json"))[0])
            revoked, _ = await cortex("revoke", "a b")
            left = json.loads((await cortex("list", "--json"))[0])
            everything = json.loads((await cortex("list", "--all", "--json"))[0])
            gone, _ = await cortex("groups", "delete", "team")
            _, refused = await cortex("list", key="sk-x")
        finally:
            await fleet.stop()

    assert ["ollama"] == json.loads(group)["scopes"]["dialects"]
    assert FORM.search(made)
    assert FORM.search(rotated)
    assert "old_secret_ends_at" not in shown
    assert "is revoked" in revoked
    assert [] == left["keys"]
    assert [shown["id"]] == [one["id"] for one in everything["keys"]]
    assert "gone" in gone
    assert 1 == refused
