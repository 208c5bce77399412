"""One trace of a request through every process of a fleet, as a collector takes it."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.doubles.otlp_collector import Collector, TakenSpan, collecting, silent_collector
from tests.system.fleet.conftest import BUDGET
from tests.system.fleet.processes import PATIENCE_SECONDS, Fleet, until

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ENSURE, SESSION = "cortex.v1.RegistryService/EnsureModel", "cortex.v1.NeuronService/Session"
BODY = {"model": "alpha", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")


def traced(fleet: Fleet, url: str, more: str = "") -> None:
    section = f'\n[telemetry]\notlp_endpoint = "{url}"\n{more}'
    fleet.add_registry(settings=section)
    fleet.add_neuron("left", settings=BUDGET + section)
    fleet.add_gateway(settings=section)
    fleet.wait("left")


def ask(fleet: Fleet, **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=PATIENCE_SECONDS) as http:
        return http.post(f"{fleet.url}/v1/chat/completions", json=BODY, headers=headers)


def the(collector: Collector, name: str, service: str) -> TakenSpan:
    (found,) = collector.named(name, f"cortex-{service}")
    return found


def test_a_request_is_one_trace_from_its_caller_to_the_worker(fleet):
    with collecting() as collector:
        traced(fleet, collector.url)
        told = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "mine"}
        assert ask(fleet, **told).status_code == 200
        until(lambda: collector.named("request openai_chat") and collector.named("chat alpha"))
        until(lambda: collector.named(ENSURE, "cortex-registry"))

    request = the(collector, "request openai_chat", "gateway")
    asked = the(collector, ENSURE, "gateway")
    placed = the(collector, ENSURE, "registry")
    session = the(collector, SESSION, "gateway")
    chat = the(collector, "chat alpha", "neuron")
    phases = [the(collector, each, "neuron") for each in ("prepare", "queue", "prefill", "decode")]
    assert {TRACE} == {span.trace_id for span in collector.spans}
    assert [CALLER, request.span_id, asked.span_id] == [
        span.parent for span in (request, asked, placed)
    ]
    assert [request.span_id, session.span_id] == [span.parent for span in (session, chat)]
    assert {chat.span_id} == {span.parent for span in phases}
    assert ["mine"] * 3 == [
        span.attributes["cortex.request_id"] for span in (request, placed, chat)
    ]
    assert {"loading", "placed"} <= set(asked.events)
    assert "first_token" in request.events
    assert request.seconds >= asked.seconds
    assert sum(span.seconds for span in phases) <= chat.seconds * 1.5
    assert (5, ["max_tokens"]) == (
        request.attributes["gen_ai.usage.output_tokens"],
        request.attributes["gen_ai.response.finish_reasons"],
    )
    assert "alpha" == request.attributes["gen_ai.request.model"]
    assert "left" == session.attributes["cortex.neuron"]
    (line,) = fleet["gateway"].lines("request.finished")
    assert (TRACE, "mine") == (line["trace_id"], line["request_id"])


def test_what_its_caller_does_not_sample_is_not_recorded(fleet):
    with collecting() as collector:
        traced(fleet, collector.url)
        assert ask(fleet, traceparent=f"00-{TRACE}-{CALLER}-00").status_code == 200
        assert ask(fleet).status_code == 200
        until(lambda: collector.named("request openai_chat") and collector.named("chat alpha"))

    (request,) = collector.named("request openai_chat")
    assert request.parent == ""
    assert TRACE not in {span.trace_id for span in collector.spans}


def test_a_collector_that_is_away_harms_nothing(fleet):
    with silent_collector() as url:
        traced(fleet, url)
        assert [200, 200] == [ask(fleet).status_code for _ in range(2)]
        began = time.monotonic()
        codes = fleet.end()

    assert {0} == set(codes.values())
    # what an exporter left alone would wait for: ten seconds for each process
    assert time.monotonic() - began < PATIENCE_SECONDS
