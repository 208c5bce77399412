"""Whose request it was, in figures and log lines, also where it never came to an instance."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from services.backplane.errors import FleetError, Reason
from services.gateway.api.access_log import AccessLog
from services.gateway.settings import ApiKey, AuthSettings
from services.gateway.telemetry.request_log import RequestLine, RequestLog
from tests.doubles.scripted_neuron import Script
from tests.integration.gateway.fleet import Fleet

MESSAGES = [{"role": "user", "content": "Hi"}]
LOOKUPS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai_embeddings": ("/v1/embeddings", {"input": "a"}),
    "ollama_embed": ("/api/embed", {"input": "a"}),
    "anthropic_count_tokens": ("/v1/messages/count_tokens", {"messages": MESSAGES}),
    "openai_responses_input_tokens": ("/v1/responses/input_tokens", {"input": "a"}),
}


class Lines(RequestLog):
    """Keeps the lines."""

    def __init__(self, access_log: AccessLog) -> None:
        self._access_log = access_log
        self._kept: list[RequestLine] = []

    @property
    def kept(self) -> list[RequestLine]:
        self._access_log.settle()
        return self._kept

    def write(self, line: RequestLine) -> None:
        self._kept.append(line)

    def drain(self) -> None:
        """Nothing is held back."""


@pytest.fixture
def lines(fleet: Fleet) -> Lines:
    access_log = fleet.gateway.services.access_log
    found = Lines(access_log)
    access_log.use(found)
    return found


def counted(fleet: Fleet, model: str, dialect: str, status: int) -> float:
    outcome = "completed" if status == 200 else "failed"
    return fleet.metric(
        "cortex_gateway_requests_total",
        model=model,
        dialect=dialect,
        status=str(status),
        outcome=outcome,
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_placement_that_failed_counts_for_its_model(
    fleet: Fleet, lines: Lines, stream: bool
) -> None:
    fleet.registry.steps = [FleetError(Reason.LOAD_FAILED, "It does not load.")]

    assert (await fleet.chat(model="tiny-alias", stream=stream)).status_code == 502

    assert counted(fleet, "tiny", "openai_chat", 502) == 1
    (line,) = lines.kept
    assert (line.model, line.reason) == ("tiny-alias", "LOAD_FAILED")


@pytest.mark.parametrize("dialect", LOOKUPS)
@pytest.mark.parametrize("status", [200, 400])
async def test_a_lookup_counts_for_its_model(
    fleet: Fleet, lines: Lines, dialect: str, status: int
) -> None:
    neuron = await fleet.add_neuron()
    if status == 400:
        neuron.unary_refusals = [FleetError(Reason.WRONG_MODALITY, "It makes no vectors.")]
    path, body = LOOKUPS[dialect]

    answer = await fleet.client.post(path, json={"model": "tiny-alias", **body})

    assert answer.status_code == status
    assert counted(fleet, "tiny", dialect, status) == 1
    (line,) = lines.kept
    assert (line.model, line.neuron, line.attempts) == ("tiny-alias", "n1", 1)


async def test_a_body_that_cannot_be_read_counts_for_the_model_that_it_names(
    fleet: Fleet, lines: Lines
) -> None:
    assert (await fleet.chat(temperature="warm")).status_code == 400

    assert counted(fleet, "tiny", "openai_chat", 400) == 1
    assert lines.kept[0].model == "tiny"


@pytest.mark.parametrize("model", ["nobody", 5, ["tiny"]])
async def test_a_model_that_nobody_knows_makes_no_series_of_its_own(
    fleet: Fleet, lines: Lines, model: Any
) -> None:
    status = (await fleet.chat(model=model)).status_code

    assert status == (404 if model == "nobody" else 400)
    assert counted(fleet, "unknown", "openai_chat", status) == 1
    assert lines.kept[0].model == ("nobody" if model == "nobody" else "")


@pytest.mark.parametrize("dialect", LOOKUPS)
async def test_a_lookup_names_its_principal_to_the_neuron(bare: Fleet, dialect: str) -> None:
    await bare.start(AuthSettings(keys=(ApiKey(name="ann", key="sk-ann"),)))
    neuron = await bare.add_neuron("n1")
    path, body = LOOKUPS[dialect]
    headers = {"authorization": "Bearer sk-ann"}

    answer = await bare.client.post(path, json={"model": "tiny", **body}, headers=headers)

    assert answer.status_code == 200
    asked: list[Any] = [*neuron.counted, *neuron.embedded]
    assert {each.principal for each in asked} == {"ann"}


@pytest.mark.parametrize("joules", [12.5, None])
async def test_the_energy_of_an_answer_is_logged_where_its_neuron_tells_it(
    fleet: Fleet, lines: Lines, joules: float | None
) -> None:
    neuron = await fleet.add_neuron("n1", Script(joules=joules))

    await fleet.chat(n=2)

    (line,) = lines.kept
    assert len(neuron.requests) == 2
    assert line.joules == (UNSET if joules is None else 25.0)
