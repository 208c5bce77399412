"""`vllm_metrics`: a gateway's page, of one process or of several, as dashboards for vLLM read it."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prometheus_client import parser

from tests.doubles.processes import free_port
from tests.doubles.scripted_neuron import Script, ScriptedNeuron
from tests.doubles.stand_in_registry import StandInRegistry
from tests.integration.gateway.fleet import chat_body
from tests.integration.gateway.gateway_process import SECONDS, Process, ready, settings


async def page(client: httpx.AsyncClient, port: int) -> dict[str, float]:
    """Every sample of vLLM's names, by name; those of one name added up."""
    text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    told: dict[str, float] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("vllm:") and "le" not in sample.labels:
                assert sample.labels["model_name"] == "tiny"
                told[sample.name] = told.get(sample.name, 0) + sample.value
    return told


async def comes(client: httpx.AsyncClient, port: int, **wanted: float) -> dict[str, float]:
    """The page once it tells this; figures may be a fifth of a second late."""
    async with asyncio.timeout(SECONDS):
        while True:
            told = await page(client, port)
            if (
                wanted.items()
                <= {key.removeprefix("vllm:"): it for key, it in told.items()}.items()
            ):
                return told
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
async def test_running_and_ended_requests_are_told_by_their_names(
    gateway: Process, workers: int
) -> None:
    registry = StandInRegistry()
    await registry.start()
    neuron = ScriptedNeuron("n1")
    neuron.scripts = [Script(gap=1.0), Script()]
    await neuron.start()
    registry.add_model("tiny")
    registry.put(neuron.described())
    port, metrics = free_port(), free_port()
    text = settings(registry.address, port=port, more=f"workers = {workers}\nvllm_metrics = true\n")
    await gateway.start(
        text.replace('metrics_listen = ""', f'metrics_listen = "127.0.0.1:{metrics}"')
    )
    await ready(port)
    url = f"http://127.0.0.1:{port}/v1/chat/completions"

    async with httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client:
        asked = asyncio.create_task(client.post(url, json=chat_body()))
        await comes(client, metrics, num_requests_running=1, num_requests_waiting=0)
        answer = (await asked).json()
        told = await comes(client, metrics, num_requests_running=0, request_success_total=1)

    assert told["vllm:e2e_request_latency_seconds_count"] == 1
    assert told["vllm:time_to_first_token_seconds_count"] == 1
    for name in ("inter_token_latency_seconds", "time_per_output_token_seconds"):
        assert told[f"vllm:{name}_count"] == answer["usage"]["completion_tokens"] - 1
    assert told["vllm:request_prompt_tokens_sum"] == answer["usage"]["prompt_tokens"]
    assert told["vllm:request_generation_tokens_sum"] == answer["usage"]["completion_tokens"]
    assert told["vllm:generation_tokens_total"] == answer["usage"]["completion_tokens"]
    assert told["vllm:prompt_tokens_total"] == answer["usage"]["prompt_tokens"]
    await neuron.stop()
    await registry.stop()
