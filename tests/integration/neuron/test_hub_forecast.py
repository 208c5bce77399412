"""What a model of a hub will weigh, before it is fetched."""

from __future__ import annotations

import asyncio
import json

import pytest

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.neuron.sources import hub_forecast
from tests.doubles.hub_models import FOLDER, HUGE, REPO, WEIGHTS
from tests.doubles.neuron_host import refusal, running_neuron

pytest.importorskip("huggingface_hub")

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "max_position_embeddings": 8192,
}


async def test_what_a_model_will_weigh_is_known_before_it_is_fetched(hub, source):
    hub.push(REPO, {**FOLDER, "config.json": json.dumps(CONFIG).encode()})

    foreseen = await source.foresee(f"{REPO}@main", "")

    assert foreseen.format == "safetensors"
    assert foreseen.bytes == len(WEIGHTS)
    assert foreseen.cache_bytes_per_token == 30 * 3 * 64 * 2 * 2
    assert foreseen.max_context_tokens == 8192
    assert not hub.downloads()
    assert source.find(f"{REPO}@main", "") is None


async def test_the_quant_chooses_what_is_weighed(hub, source):
    hub.push(REPO, {"m-Q4_K_M.gguf": WEIGHTS[:2000], "m-Q8_0.gguf": WEIGHTS[:4000]})

    sizes = [(await source.foresee(f"{REPO}@main", one)).bytes for one in ("q4_k_m", "q8_0")]

    assert sizes == [2000, 4000]
    listed = [one for one in hub.asked if one.path.startswith("/api/models")]
    assert len(listed) == 1


async def test_those_who_ask_together_ask_the_hub_once(hub, source):
    hub.push(REPO, {"m.gguf": WEIGHTS})

    found = await asyncio.gather(*[source.foresee(f"{REPO}@main", "") for _ in range(8)])

    assert {one.bytes for one in found} == {len(WEIGHTS)}
    assert len([one for one in hub.asked if one.path.startswith("/api/models")]) == 1


async def test_a_forecast_that_failed_is_asked_again_after_a_while(hub, source, monkeypatch):
    for _ in range(2):
        with pytest.raises(FleetError) as failed:
            await source.foresee(f"{REPO}@main", "")
        assert failed.value.reason is Reason.MODEL_UNKNOWN
    asked = len(hub.asked)
    monkeypatch.setattr(hub_forecast, "_FAILURE_REMEMBERED_SECONDS", 0.0)
    hub.push(REPO, {"m.gguf": WEIGHTS})

    assert (await source.foresee(f"{REPO}@main", "")).bytes == len(WEIGHTS)
    assert len(hub.asked) > asked


async def test_a_hub_that_does_not_describe_in_time_is_unavailable(hub, source, monkeypatch):
    hub.push(REPO, FOLDER)
    hub.is_silent = True  # the configuration never comes
    monkeypatch.setattr(hub_forecast, "_LIMIT_SECONDS", 1.0)

    with pytest.raises(FleetError) as failed:
        await source.foresee(f"{REPO}@main", "")

    assert failed.value.reason is Reason.SOURCE_UNAVAILABLE
    assert "did not describe" in failed.value.message


async def test_can_fit_answers_for_a_model_of_the_hub(hub, tmp_path):
    hub.push(REPO, {"m.gguf": HUGE})
    async with running_neuron(tmp_path, hf_endpoint=hub.endpoint) as host:

        async def can_fit(source: str) -> neuron.CanFitResponse:
            spec = model.LoadSpec(model="m", source=source)
            answer: neuron.CanFitResponse = await host.stub.CanFit(neuron.CanFitRequest(spec=spec))
            return answer

        fits = await can_fit(f"hf:{REPO}@main")
        elsewhere = await refusal(can_fit("hf:acme/none@main"))
        package = await refusal(can_fit("package:none==1.0/m.gguf"))

    assert fits.fits
    assert fits.required_bytes > len(HUGE)
    assert not hub.downloads()
    assert elsewhere.reason is Reason.MODEL_UNKNOWN
    assert package.reason is Reason.NOT_FOUND
