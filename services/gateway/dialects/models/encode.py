"""Listed models in the OpenAI and in the Anthropic shape.

The OpenAI shape carries what vLLM and the agents that read it look for besides: the window, so that
they compact in time, and where the model is loaded. What is not known is left out: absent is not 0.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from cortex.v1 import model_pb2
from cortex.v1 import registry_service_pb2 as registry
from services.gateway.dialects.common.json_body import bad
from services.gateway.dialects.common.listed_models import capabilities_of
from services.gateway.dialects.common.paging import page_limit
from services.gateway.dialects.lookup import ListedModel
from services.gateway.dialects.models.anthropic_capabilities import capabilities

_LONGEST_PAGE: Final = 1000
_DEFAULT_PAGE: Final = 20


class ListedModelAnswer(msgspec.Struct):
    """The fields that one model has in the OpenAI shape and in the Anthropic shape."""

    id: str


class ModelListAnswer(msgspec.Struct):
    """The fields of a listing in either shape."""

    data: list[ListedModelAnswer]


def openai_object(one: ListedModel) -> dict[str, Any]:
    """One model in the OpenAI shape, with extensions."""
    found: dict[str, Any] = {
        "id": one.model,
        "object": "model",
        "created": one.created_unix_seconds,
        "owned_by": "cortex" if one.is_of_fleet else one.upstreams[0],
        "status": status_of(one),
        "loaded": one.is_loaded,
        "capabilities": capabilities_of(one),
        "locations": [
            {"neuron": neuron, "status": _state(state)} for neuron, state in one.locations
        ],
        "feasible_on": list(one.feasible_neurons),
        "aliases": list(one.aliases),
    }
    if one.upstreams:
        found["upstreams"] = list(one.upstreams)
    found |= _limits(one)
    if one.description:
        found["description"] = one.description
    if one.price is not None:
        found["cost"] = _cost(one.price)
    return found


def _limits(one: ListedModel) -> dict[str, Any]:
    """`limit` as agents' model tables have it, and flat for clients made for vLLM."""
    known = {"context": one.max_context_tokens, "output": one.max_output_tokens}
    limit = {key: value for key, value in known.items() if value is not None}
    found: dict[str, Any] = {"limit": limit} if limit else {}
    if one.max_context_tokens is not None:
        found["max_model_len"] = one.max_context_tokens
        found["context_length"] = one.max_context_tokens
        found["max_input_tokens"] = one.max_context_tokens
    if one.max_output_tokens is not None:
        found["max_output_tokens"] = one.max_output_tokens
    return found


def _cost(price: registry.Price) -> dict[str, float]:
    """US dollars per million tokens; what is not known is left out."""
    return {field.name: value for field, value in price.ListFields()}


def status_of(one: ListedModel) -> str:
    """`loaded`, the state of the instance that is nearest to it, `unloaded`, or `upstream`."""
    if not one.is_of_fleet:
        return "upstream"
    if one.is_loaded:
        return "loaded"
    states = {_state(state) for _, state in one.locations}
    for state in ("loading", "recovering", "draining", "unloading", "failed"):
        if state in states:
            return state
    return "unloaded"


def _state(state: model_pb2.InstanceState.ValueType) -> str:
    name = model_pb2.InstanceState.Name(state).removeprefix("INSTANCE_STATE_").lower()
    return "loaded" if name == "ready" else name


def openai_list(models: Sequence[ListedModel]) -> dict[str, Any]:
    """The whole listing in the OpenAI shape."""
    return {"object": "list", "data": [openai_object(one) for one in models]}


def anthropic_object(one: ListedModel) -> dict[str, Any]:
    """One model in the Anthropic shape."""
    created = dt.datetime.fromtimestamp(one.created_unix_seconds, dt.UTC)
    return {
        "type": "model",
        "id": one.model,
        "display_name": one.description or one.model,
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": one.max_context_tokens,
        "max_tokens": one.max_output_tokens or one.max_context_tokens,
        "capabilities": capabilities(one),
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
    }


def anthropic_page(models: Sequence[ListedModel], query: Mapping[str, str]) -> dict[str, Any]:
    """One page of the listing in the Anthropic shape.

    Raises:
        FleetError: BAD_REQUEST for a limit out of range or an id that is not in the list.
    """
    limit = page_limit(query.get("limit"), default=_DEFAULT_PAGE, most=_LONGEST_PAGE)
    names = [one.model for one in models]
    if "after_id" in query:
        models = models[_position(names, query["after_id"], "after_id") + 1 :]
    elif "before_id" in query:
        models = models[: _position(names, query["before_id"], "before_id")]
        page = models[-limit:]
        return _page(page, has_more=len(models) > len(page))
    return _page(models[:limit], has_more=len(models) > limit)


def _page(models: Sequence[ListedModel], *, has_more: bool) -> dict[str, Any]:
    return {
        "data": [anthropic_object(one) for one in models],
        "has_more": has_more,
        "first_id": models[0].model if models else None,
        "last_id": models[-1].model if models else None,
    }


def _position(names: Sequence[str], name: str, field: str) -> int:
    if name not in names:
        raise bad(field, f"{name!r} is not in the list.")
    return names.index(name)
