"""What `/v1/models` entries of different servers say about a model's window."""

from collections.abc import Mapping
from typing import Any

from services.agent.endpoints.endpoint import EndpointModel

_FLAT_KEYS = ("max_model_len", "context_length", "context_window", "max_context_length")


def model_info(model_id: str, extra: Mapping[str, Any] | None) -> EndpointModel:
    """Reads an entry: Cortex and helexa say `limit.context`, vLLM `max_model_len`, others vary.

    llama.cpp puts it in `meta.n_ctx`. Anything but a positive integer counts as unknown.
    """
    fields = extra or {}
    nested = [(fields.get("limit"), "context"), (fields.get("meta"), "n_ctx")]
    found = [fields.get(key) for key in _FLAT_KEYS]
    found += [inner.get(key) for inner, key in nested if isinstance(inner, Mapping)]
    windows = [value for value in found if isinstance(value, int) and value > 0]
    return EndpointModel(model_id, windows[0] if windows else None)
