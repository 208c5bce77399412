"""What the Ollama API tells of models; its embeddings."""

from __future__ import annotations

from typing import Any

import pytest

from services.backplane.errors import FleetError
from services.gateway.dialects.ollama import listings
from tests.unit.gateway.dialects.fixed_fleet import look_up_in


async def test_ollama_listings() -> None:
    version = (await look_up_in(listings.OllamaVersion()))["version"]
    tags = await look_up_in(listings.OllamaTags())
    running = await look_up_in(listings.OllamaRunning())
    shown = await look_up_in(listings.OllamaShow(), {"model": "big:latest"})

    assert tuple(int(part) for part in version.split(".")) >= (0, 13, 4), "Codex refuses below"
    assert ["big", "org/cold", "large"] == [one["name"] for one in tags["models"]]
    assert ["big"] == [one["name"] for one in running["models"]]
    assert 8192 == shown["model_info"]["unknown.context_length"]
    assert ["completion", "tools"] == shown["capabilities"]


async def test_pulling_is_answered_honestly() -> None:
    assert {"status": "success"} == await look_up_in(listings.OllamaPull(), {"model": "big"})
    with pytest.raises(FleetError, match="pulls nothing on request"):
        await look_up_in(listings.OllamaPull(), {"name": "llama9"})


async def test_ollama_embeddings() -> None:
    many = await look_up_in(listings.OllamaEmbed(), {"model": "m:latest", "input": ["a", "b"]})
    one = await look_up_in(listings.OllamaEmbedOne(), {"model": "m", "prompt": "a"})

    assert ("m:latest", 2, 7) == (many["model"], len(many["embeddings"]), many["prompt_eval_count"])
    assert [0.5, -1.0] == one["embedding"]


@pytest.mark.parametrize("body", [{"input": ""}, {"input": []}, {"keep_alive": "5m"}])
async def test_embedding_nothing_is_told_as_nothing(body: dict[str, Any]) -> None:
    many = await look_up_in(listings.OllamaEmbed(), {"model": "m", **body})
    one = await look_up_in(listings.OllamaEmbedOne(), {"model": "m", "prompt": ""})

    assert ([], 0) == (many["embeddings"], many["prompt_eval_count"])
    assert [] == one["embedding"]
