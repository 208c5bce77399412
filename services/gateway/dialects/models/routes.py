"""The routes of model listings."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.anthropic_body import envelope
from services.gateway.dialects.common.json_body import encode as to_json
from services.gateway.dialects.common.listed_models import with_aliases
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.lookup import FleetQueries, Lookup
from services.gateway.dialects.models import encode
from services.gateway.dialects.mount import Mount


def _is_anthropic(head: Head | None) -> bool:
    return head is not None and "anthropic-version" in head.headers


class ModelList(Lookup):
    """The listing, in the shape of whichever SDK asks."""

    name: str = "models"
    answers: type[Any] | None = encode.ModelListAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The listing."""
        models = with_aliases(fleet.models())
        if _is_anthropic(head):
            return to_json(encode.anthropic_page(models, head.query))
        return to_json(encode.openai_list(models))

    @override
    def error(self, error: FleetError, head: Head | None) -> bytes:
        """The error envelope, in the same SDK's shape."""
        if _is_anthropic(head):
            return envelope(error, head)
        return openai_body.envelope(error)


class OneModel(ModelList):
    """One model by name or alias."""

    name: str = "model"
    answers: type[Any] | None = encode.ListedModelAnswer

    @override
    async def answer(self, body: bytes, head: Head, fleet: FleetQueries) -> bytes:
        """The model."""
        name = head.path.get("model", "")
        for one in with_aliases(fleet.models()):
            if one.model == name:
                shape = encode.anthropic_object if _is_anthropic(head) else encode.openai_object
                return to_json(shape(one))
        raise FleetError(Reason.MODEL_UNKNOWN, f"The model {name!r} does not exist.", field="model")


def routes(mount: Mount) -> list[Route]:
    """Listing and look-up."""
    listing, one = mount.lookup(ModelList()), mount.lookup(OneModel())
    return [
        Route("/v1/models", listing, methods=["GET"]),
        Route("/models", listing, methods=["GET"]),
        Route("/v1/models/{model:path}", one, methods=["GET"]),
    ]
