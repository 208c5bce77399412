"""Look-ups of the Ollama API: tags, ps, show, version, pull, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.json_body import encode as to_json
from services.gateway.dialects.common.listed_models import capabilities_of, with_aliases
from services.gateway.dialects.dialect import BodyTable, Head
from services.gateway.dialects.lookup import FleetQueries, ListedModel, Lookup
from services.gateway.dialects.ollama import description, embeddings, encode
from services.gateway.dialects.ollama.decode import model_name
from services.gateway.dialects.ollama.fields import EMBED, NAME, NameRequest

# Codex asks for 0.13.4 at least; what later versions added to these paths is served too.
_VERSION: Final = "0.13.5"
# Words of this API for what a model can do.
_CAPABILITIES: Final = {
    "chat": "completion",
    "completion": "completion",
    "tools": "tools",
    "reasoning": "thinking",
    "vision": "vision",
    "embedding": "embedding",
}


class VersionAnswer(msgspec.Struct):
    """The fields of a version."""

    version: str


class OllamaModel(msgspec.Struct):
    """The fields of one listed model."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: dict[str, Any]
    capabilities: list[str]
    expires_at: str | None = None
    size_vram: int | None = None
    context_length: int | None = None


class ModelsAnswer(msgspec.Struct):
    """The fields of a listing."""

    models: list[OllamaModel]


class ShownAnswer(msgspec.Struct):
    """The fields of what is known of one model."""

    modelfile: str
    parameters: str
    template: str
    details: dict[str, Any]
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class PulledAnswer(msgspec.Struct):
    """The fields of a pull that has found its model."""

    status: str


class _OllamaLookup(Lookup):
    """What all of them share."""

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        return encode.envelope(error)


class OllamaVersion(_OllamaLookup):
    """The version of the API that is spoken here."""

    name: str = "ollama_version"
    answers: type[Any] | None = VersionAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The version."""
        return to_json({"version": _VERSION})


class OllamaTags(_OllamaLookup):
    """Every model."""

    name: str = "ollama_tags"
    answers: type[Any] | None = ModelsAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The listing."""
        return to_json({"models": [_entry(one) for one in with_aliases(fleet.models())]})


class OllamaRunning(_OllamaLookup):
    """The models that are loaded."""

    name: str = "ollama_ps"
    answers: type[Any] | None = ModelsAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The listing."""
        loaded = [one for one in fleet.models() if one.is_loaded]
        return to_json({"models": [_running(one) for one in loaded]})


class OllamaShow(_OllamaLookup):
    """One model."""

    name: str = "ollama_show"
    reads: BodyTable | None = NAME
    answers: type[Any] | None = ShownAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """What is known of the model."""
        one = _find(fleet.models(), _asked(body))
        return to_json(
            {
                "modelfile": "",
                "parameters": "",
                "template": "",
                "details": description.details(one),
                "model_info": description.model_info(one),
                "capabilities": _capabilities(one),
                "modified_at": description.modified_at(one),
            }
        )


class OllamaPull(_OllamaLookup):
    """Pulling: succeeds for models that the fleet has; others cannot be pulled here."""

    name: str = "ollama_pull"
    reads: BodyTable | None = NAME
    answers: type[Any] | None = PulledAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """`success` where the fleet has the model.

        Raises:
            FleetError: MODEL_UNKNOWN where it has not.
        """
        asked = _asked(body)
        try:
            _find(fleet.models(), asked)
        except FleetError as error:
            raise FleetError(
                Reason.MODEL_UNKNOWN,
                f"model '{asked}' not found: this fleet pulls nothing on request; "
                "its operator adds models to the catalogue.",
            ) from error
        return to_json({"status": "success"}) + b"\n"


class OllamaEmbed(_OllamaLookup):
    """Embeddings, in this API's shape."""

    name: str = "ollama_embed"
    reads: BodyTable | None = EMBED
    answers: type[Any] | None = embeddings.EmbedAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The vectors."""
        decoded = await fleet.decoded(embeddings.decode, body, head)
        return embeddings.body(decoded, await fleet.embed(decoded.request))


class OllamaEmbedOne(_OllamaLookup):
    """One embedding, in the shape of the older path."""

    name: str = "ollama_embeddings"
    reads: BodyTable | None = EMBED
    answers: type[Any] | None = embeddings.EmbedOneAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The vector."""
        decoded = await fleet.decoded(embeddings.decode_one, body, head)
        return embeddings.body_of_one(await fleet.embed(decoded.request))


class OllamaUnsupported(_OllamaLookup):
    """Requests that change models on disk, which only the operator does here."""

    name: str = "ollama_unsupported"

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """Refuses: only the operator changes models on disk.

        Raises:
            FleetError: NOT_SUPPORTED.
        """
        raise FleetError(
            Reason.NOT_SUPPORTED, "Models are not made, copied or deleted through this API."
        )


def _asked(body: bytes) -> str:
    wire: NameRequest = NAME.read(body)
    if not wire.asked():
        raise FleetError(Reason.BAD_REQUEST, "model is required", field="model")
    return wire.asked()


def _find(models: Sequence[ListedModel], asked: str) -> ListedModel:
    name = model_name(asked)
    for one in with_aliases(models):
        if one.model == name:
            return one
    raise FleetError(Reason.MODEL_UNKNOWN, f"model '{asked}' not found", field="model")


def _entry(one: ListedModel) -> dict[str, Any]:
    return {
        "name": one.model,
        "model": one.model,
        "modified_at": description.modified_at(one),
        "size": description.size_bytes(one),
        "digest": description.digest(one),
        "details": description.details(one),
        "capabilities": _capabilities(one),
    }


def _running(one: ListedModel) -> dict[str, Any]:
    held, on_gpus = one.memory_bytes
    return _entry(one) | {
        # the fleet decides by need, not by the clock
        "expires_at": "9999-12-31T23:59:59Z",
        "size": held or description.size_bytes(one),
        "size_vram": on_gpus,
        "context_length": one.max_context_tokens or 0,
    }


def _capabilities(one: ListedModel) -> list[str]:
    words = (_CAPABILITIES[word] for word in capabilities_of(one))
    return list(dict.fromkeys(words)) or ["completion"]
