"""Answers of the Ollama API."""

from __future__ import annotations

import json

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.ollama.routes import OllamaGenerate


def test_errors_of_ollama_are_flat() -> None:
    error = FleetError(Reason.MODEL_UNKNOWN, "model 'x' not found")

    assert {"error": "model 'x' not found"} == json.loads(OllamaGenerate().error(error, None))
