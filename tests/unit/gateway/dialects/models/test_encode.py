"""Listed models in both shapes."""

from __future__ import annotations

import json

import msgspec
import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.models.routes import ModelList, OneModel
from tests.unit.gateway.dialects.answers import HEAD
from tests.unit.gateway.dialects.fixed_fleet import look_up_in


async def test_models_in_the_openai_shape() -> None:
    found = await look_up_in(ModelList())

    assert ["big", "org/cold", "large"] == [one["id"] for one in found["data"]]
    big, cold, alias = found["data"]
    assert (8192, {"context": 8192}, "loaded") == (
        big["max_model_len"],
        big["limit"],
        big["status"],
    )
    assert {"input": 0.0} == big["cost"], "free is not unknown"
    assert [{"neuron": "n2", "status": "loading"}] == cold["locations"]
    assert "loading" == cold["status"]
    assert "limit" not in cold, "unknown is not 0"
    assert "cost" not in cold
    assert alias["max_model_len"] == big["max_model_len"]


async def test_models_in_the_anthropic_shape() -> None:
    head = msgspec.structs.replace(HEAD, headers={"anthropic-version": "2023-06-01"})

    page = await look_up_in(ModelList(), head=msgspec.structs.replace(head, query={"limit": "2"}))
    rest = await look_up_in(
        ModelList(), head=msgspec.structs.replace(head, query={"after_id": page["last_id"]})
    )

    assert (["big", "org/cold"], True) == ([one["id"] for one in page["data"]], page["has_more"])
    assert (["large"], False) == ([one["id"] for one in rest["data"]], rest["has_more"])
    assert "2023-11-14T22:13:20Z" == page["data"][0]["created_at"]
    assert {"type", "id", "display_name", "created_at"} <= set(page["data"][0])


async def test_a_model_with_a_slash_is_found() -> None:
    head = msgspec.structs.replace(HEAD, path={"model": "org/cold"})

    assert "org/cold" == (await look_up_in(OneModel(), head=head))["id"]


async def test_an_unknown_model_is_not() -> None:
    head = msgspec.structs.replace(HEAD, path={"model": "nope"})

    with pytest.raises(FleetError) as raised:
        await look_up_in(OneModel(), head=head)
    assert Reason.MODEL_UNKNOWN is raised.value.reason
    assert "model_not_found" == json.loads(OneModel().error(raised.value, head))["error"]["code"]
