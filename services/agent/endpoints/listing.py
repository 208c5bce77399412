"""What `/v1/models` entries of different servers say about a model."""

from collections.abc import Mapping
from typing import Any

import openai

from services.agent.endpoints.endpoint import EndpointModel
from services.agent.endpoints.failures import translated

_TALKING = frozenset({"chat", "completion", "tools"})
_SEEING = frozenset({"vision", "multimodal"})
_OTHER_KINDS = frozenset({"embedding", "embeddings", "embed", "rerank", "reranking"})
_CALLING = frozenset({"tools", "tool_use"})
_FLAT_KEYS = (
    "max_model_len",
    "context_length",
    "context_window",
    "max_context_length",
    "max_input_tokens",
)


async def openai_models(client: openai.AsyncOpenAI, endpoint: str) -> list[EndpointModel]:
    """Every model that an OpenAI-compatible endpoint lists.

    Args:
        client: asks it.
        endpoint: its name, for errors.

    Raises:
        EndpointError: it cannot be reached, or refuses.
    """
    with translated(endpoint, openai):
        page = await client.models.list()
        return [model_info(model.id, model.model_extra) for model in page.data]


def model_info(model_id: str, extra: Mapping[str, Any] | None) -> EndpointModel:
    """Reads an entry: Cortex and helexa say `limit.context`, vLLM `max_model_len`, others vary.

    llama.cpp puts it in `meta.n_ctx`. Anything but a positive integer counts as unknown.
    """
    fields = extra or {}
    nested = [(fields.get("limit"), "context"), (fields.get("meta"), "n_ctx")]
    found = [fields.get(key) for key in _FLAT_KEYS]
    found += [inner.get(key) for inner, key in nested if isinstance(inner, Mapping)]
    windows = [value for value in found if isinstance(value, int) and value > 0]
    return EndpointModel(
        model_id,
        windows[0] if windows else None,
        can_chat=_can_chat(fields),
        can_see=_can_see(fields),
        can_call=_can_call(fields),
        aliases=tuple(sorted(_words(fields.get("aliases")))),
    )


def _can_chat(fields: Mapping[str, Any]) -> bool:
    """False where an entry says that the model is for something else.

    Cortex and llama.cpp list capabilities, Mistral has flags of them, LM Studio says a type.
    """
    listed = fields.get("capabilities")
    if isinstance(listed, Mapping):
        return listed.get("completion_chat") is not False
    if fields.get("type") in _OTHER_KINDS:
        return False
    words = _words(listed)
    return not words or bool(words & _TALKING) or not words & _OTHER_KINDS


def _can_see(fields: Mapping[str, Any]) -> bool | None:
    """Whether it takes pictures, as Cortex, llama.cpp and OpenRouter say it; None: not said."""
    listed = fields.get("capabilities")
    if isinstance(listed, Mapping):
        return _said(listed.get("vision", listed.get("image_input")))
    words = _words(listed)
    if words & _SEEING:
        return True
    architecture = fields.get("architecture")
    if isinstance(architecture, Mapping) and architecture.get("input_modalities"):
        return "image" in _words(architecture["input_modalities"])
    # llama.cpp says `completion` and `multimodal`; `chat` is Cortex's, which names all there is
    return False if "chat" in words else None


def _can_call(fields: Mapping[str, Any]) -> bool | None:
    """Whether it takes tools, as Cortex, LM Studio, Mistral and OpenRouter say it; None: unsaid."""
    listed = fields.get("capabilities")
    if isinstance(listed, Mapping):
        return _said(listed.get("function_calling"))
    words = _words(listed)
    if words & _CALLING:
        return True
    if parameters := _words(fields.get("supported_parameters")):
        return "tools" in parameters
    return False if "chat" in words else None


def _said(value: Any) -> bool | None:
    """Reads a flag; Anthropic's are objects."""
    said = value.get("supported") if isinstance(value, Mapping) else value
    return said if isinstance(said, bool) else None


def _words(listed: Any) -> set[str]:
    return {each for each in listed if isinstance(each, str)} if isinstance(listed, list) else set()
