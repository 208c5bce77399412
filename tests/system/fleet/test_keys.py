"""Keys of the store in a fleet of processes: the official SDKs, two gateways, and a registry that dies.

What a run writes is searched for the secrets afterwards: logs, audit logs, store, metrics, status.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import ssl
import time
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.doubles.processes import free_port
from tests.system.fleet.processes import PATIENCE_SECONDS, Fleet, is_ready, until

TURN: Any = [{"role": "user", "content": "Hi"}]
# Each client would read all authorities that the system trusts, which takes longer than its answer.
_UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
STATIC = "sk-planted-static-secret"
KEYS = f"""
[[auth.keys]]
name = "root"
key = "{STATIC}"
console = "admin"
"""


class Keyed:
    """A registry, a neuron and two gateways, whose audit logs and metrics are at hand."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.audit = fleet.folder / "audit"
        audit = f'[audit]\nfolder = "{self.audit}"\n'
        self.metrics = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        fleet.add_registry(settings=audit, metrics=self.metrics[0])
        fleet.add_neuron("left")
        self.urls = [
            fleet.add_gateway("second", settings=KEYS + audit, metrics=self.metrics[1]),
            fleet.add_gateway(settings=KEYS + audit, metrics=self.metrics[2]),
        ]
        fleet.wait("left")
        until(lambda: is_ready(self.urls[0]))
        self.secrets: list[str] = []

    def make(self, *words: str) -> str:
        """A new secret, by `cortex keys`."""
        made = json.loads(self.fleet.cli("keys", *words, "--json").stdout)
        secret: str = made["secret"]
        self.secrets.append(secret)
        return secret

    def status(self, url: str, secret: str) -> int:
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.get(f"{url}/v1/models", headers=headers, trust_env=False).status_code

    def known(self, secret: str, expected: int = 200) -> float:
        """Seconds until both gateways answer so."""
        began = time.monotonic()
        until(lambda: {self.status(url, secret) for url in self.urls} == {expected})
        return time.monotonic() - began


@pytest.fixture
def keyed(fleet: Fleet) -> Keyed:
    return Keyed(fleet)


def by_openai(url: str, secret: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{url}/v1",
        api_key=secret,
        max_retries=0,
        timeout=PATIENCE_SECONDS,
        http_client=openai.DefaultAsyncHttpxClient(verify=_UNUSED),
    )


def by_anthropic(url: str, secret: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=url,
        api_key=secret,
        max_retries=0,
        timeout=PATIENCE_SECONDS,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=_UNUSED),
    )


async def asked(url: str, secret: str) -> None:
    """One short answer by each SDK."""
    async with by_openai(url, secret) as one, by_anthropic(url, secret) as other:
        answer = await one.chat.completions.create(model="alpha", messages=TURN, max_tokens=4)
        message = await other.messages.create(model="alpha", messages=TURN, max_tokens=4)
    assert answer.choices[0].message.content
    assert message.content


class Streams:
    """An endless answer by each SDK, each with a key of its own.

    Attributes:
        pieces: how many have come, by the key's name.
        tasks: likewise; one ends when its stream does.
        ended_at: likewise, on the monotonic clock.
    """

    def __init__(self, keyed: Keyed, ann: str, bob: str) -> None:
        first, second = keyed.urls
        self.pieces = {"ann": 0, "bob": 0}
        self.ended_at: dict[str, float] = {}
        self.tasks = {
            "ann": asyncio.create_task(self._by_openai(first, ann)),
            "bob": asyncio.create_task(self._by_anthropic(second, bob)),
        }

    async def have_begun(self) -> None:
        while min(self.pieces.values()) < 3:
            assert not self.ended_at, [one.exception() for one in self.tasks.values() if one.done()]
            await asyncio.sleep(0.05)

    async def _by_openai(self, url: str, secret: str) -> None:
        try:
            async with by_openai(url, secret) as client:
                stream = await client.chat.completions.create(
                    model="alpha", messages=TURN, stream=True, max_tokens=20_000
                )
                async for _ in stream:
                    self.pieces["ann"] += 1
        finally:
            self.ended_at["ann"] = time.monotonic()

    async def _by_anthropic(self, url: str, secret: str) -> None:
        try:
            async with (
                by_anthropic(url, secret) as client,
                client.messages.stream(model="alpha", messages=TURN, max_tokens=20_000) as stream,
            ):
                async for _ in stream.text_stream:
                    self.pieces["bob"] += 1
        finally:
            self.ended_at["bob"] = time.monotonic()


@pytest.mark.timeout(400)
async def test_keys_are_rotated_and_revoked_under_streams_and_outlive_their_registry(
    keyed: Keyed, measured: Any
) -> None:
    fleet, (first, second) = keyed.fleet, keyed.urls
    ann = keyed.make("create", "ann", "--model", "alpha")
    bob = keyed.make("create", "bob")
    measured(f"a new key was known to both gateways after {keyed.known(bob):.2f} s")
    streams = Streams(keyed, ann, bob)
    await streams.have_begun()

    rotated = await asyncio.to_thread(keyed.make, "rotate", "ann", "--overlap", "1h")
    await asyncio.to_thread(keyed.known, rotated)
    for secret in (ann, rotated):
        await asked(second, secret)
    with pytest.raises(openai.NotFoundError):
        async with by_openai(first, rotated) as client:
            await client.chat.completions.create(model="bravo", messages=TURN)

    fleet["registry"].kill()
    for url in (first, second):
        for secret in (ann, rotated, bob):
            await asked(url, secret)
    before = dict(streams.pieces)
    fleet["registry"].start()
    await asyncio.to_thread(until, lambda: fleet.live() == {"left"})

    await asyncio.to_thread(fleet.cli, "keys", "revoke", "ann")
    revoked_at = time.monotonic()
    await asyncio.wait({streams.tasks["ann"]}, timeout=PATIENCE_SECONDS)
    late = max(0.0, streams.ended_at["ann"] - revoked_at)
    measured(f"a stream of a revoked key ended {late:.2f} s behind `cortex keys revoke`")
    for secret in (ann, rotated):
        await asyncio.to_thread(keyed.known, secret, 401)
    await asked(first, bob)

    assert isinstance(streams.tasks["ann"].exception(), openai.APIError)
    assert all(streams.pieces[name] > before[name] for name in before)
    assert "bob" not in streams.ended_at
    streams.tasks["bob"].cancel()
    await asyncio.gather(*streams.tasks.values(), return_exceptions=True)


def everything_written(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder but those that the test itself has put there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".toml"
    }


@pytest.mark.timeout(400)
async def test_no_secret_is_in_anything_that_a_run_writes(keyed: Keyed) -> None:
    """The digests of secrets are in the store, and nowhere is a secret itself."""
    fleet, (first, second) = keyed.fleet, keyed.urls
    secret = keyed.make("create", "ann", "--limit", "requests_per_minute=100")
    headers = {"authorization": f"Bearer {STATIC}"}
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as client:
        made = await client.post(f"{first}/admin/keys", json={"name": "bob"}, headers=headers)
        keyed.secrets.append(made.json()["secret"])
        keyed.known(keyed.secrets[-1])
        await asked(first, secret)
        # where secrets go by mistake: bodies, paths, other headers, other schemes, wrong keys
        wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")
        keyed.secrets.append(wrong)
        for path in ("/v1/chat/completions", "/admin/keys", "/ui/pin", "/nothing"):
            for sent in ({"api-key": wrong}, headers, {"authorization": f"Basic {secret}"}, {}):
                await client.post(
                    f"{second}{path}", json={"model": "alpha", "key": 5, "x": 1}, headers=sent
                )
        shown = await client.get(f"{second}/admin/keys?include_ended=true", headers=headers)
        looked = [
            (await client.get(f"{second}{path}", headers=headers)).text
            for path in ("/ui/requests", "/ui/usage", "/v1/models", "/readyz")
        ]
        exposed = [(await client.get(f"http://{one}/metrics")).text for one in keyed.metrics]
    keyed.make("rotate", "ann", "--overlap", "0s")
    fleet.cli("keys", "revoke", "ann")
    fleet.cli("keys", "rotate", "ann", check=False)
    said = [fleet.cli(*words).stdout for words in (("keys", "list", "--all"), ("status", "--json"))]

    written = everything_written(fleet.folder)
    texts = {
        **written,
        **{f"answer {n}": one.encode() for n, one in enumerate([*looked, *exposed, *said])},
        "listing": shown.content,
    }
    assert {"audit/audit-registry.jsonl", "audit/audit-gateway.jsonl"} <= written.keys()
    assert any(name.endswith(".sqlite") for name in written)
    assert b"ann" in written["audit/audit-registry.jsonl"]
    for hidden in (*keyed.secrets, STATIC):
        # what stands behind the id, alone, would do as well
        for part in (hidden, hidden.rpartition("_")[2] if hidden.startswith("ctx_") else hidden):
            found = [name for name, text in texts.items() if part.encode() in text]
            assert not found, f"a secret is in {found}"
