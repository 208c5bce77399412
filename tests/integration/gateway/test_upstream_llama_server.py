"""A server that is not ours as the upstream: llama-server, with a small model of the tests."""

from __future__ import annotations

import asyncio
import json
import pathlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.gateway.transports.upstream.settings import UpstreamSettings
from tests.doubles import scripted
from tests.doubles.processes import free_port
from tests.integration.gateway.fleet import Fleet, contents

pytest.importorskip("xllamacpp")

_SERVER = """
import sys, threading
import xllamacpp

asked = xllamacpp.CommonParams()
asked.model.path = sys.argv[1]
asked.n_ctx, asked.n_parallel = 4096, 2
asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
asked.fit_params = False
asked.hostnames, asked.port = ["127.0.0.1"], int(sys.argv[2])
server = xllamacpp.Server(asked)
threading.Event().wait()
"""
_SECONDS = 60.0


@pytest.fixture
async def url(tmp_path: pathlib.Path) -> AsyncIterator[str]:
    model = scripted.build(tmp_path / "m.gguf")
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _SERVER, str(model), str(port), stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(_SECONDS):
            await _ready(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _ready(address: str, process: asyncio.subprocess.Process) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        while process.returncode is None:
            try:
                if (await client.get(address)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    pytest.fail("llama-server has ended")


async def test_llama_server_answers_as_an_upstream(bare: Fleet, url: str) -> None:
    there = UpstreamSettings(
        name="llama", url=url, models={"big": "m"}, extra_fields="vllm", counts="llama-server"
    )
    names = {"big by messages": "m"}
    by_messages = UpstreamSettings(name="again", url=url, models=names, counts="anthropic")
    await bare.start(upstreams=(there, by_messages))

    stream = await bare.stream_text(model="big", stream_options={"include_usage": True})
    cut = (await bare.chat(model="big", max_tokens=2, top_k=40)).json()
    rich = (await bare.chat(model="big", logprobs=True, top_logprobs=2)).json()
    body = {"model": "big", "prompt": "a", "max_tokens": 50}
    plain = (await bare.client.post("/v1/completions", json=body)).json()
    turns = [{"role": "user", "content": "a b c"}]
    counted = [
        await bare.client.post(
            "/v1/messages/count_tokens", json={"model": model, "messages": turns}
        )
        for model in ("big", "big by messages")
    ]
    read = (await bare.chat(model="big", messages=turns)).json()["usage"]["prompt_tokens"]
    long = await bare.chat(model="big", messages=[{"role": "user", "content": "a " * 9000}])

    said = scripted.Script().text
    assert said == "".join(contents(stream))
    usage = [json.loads(o[6:]).get("usage") for o in stream.splitlines() if o.startswith("data: {")]
    assert len(scripted.Script().words) <= usage[-1]["completion_tokens"] <= 5
    assert "length" == cut["choices"][0]["finish_reason"]
    assert 2 == cut["usage"]["completion_tokens"]
    probabilities: list[Any] = rich["choices"][0]["logprobs"]["content"]
    assert said == "".join(one["token"] for one in probabilities)[: len(said)]
    assert said == plain["choices"][0]["text"]
    assert (400, "context_length_exceeded") == (long.status_code, long.json()["error"]["code"])
    assert [read, read] == [one.json()["input_tokens"] for one in counted]
