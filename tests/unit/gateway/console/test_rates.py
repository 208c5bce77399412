"""Tokens per second while they are made."""

from types import SimpleNamespace
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import Reason
from services.gateway.api.request import RequestRecord
from services.gateway.console.rates import Rates
from tests.unit.gateway.console.lines import outcome


class Running:
    """Requests under way, moved by the test."""

    def __init__(self):
        self.records: list[RequestRecord] = []
        self.now = 1000.0
        self.rates = Rates(lambda: self.records, clock=lambda: self.now)

    def begin(self, instance="one"):
        record: Any = RequestRecord("openai_chat", "r")
        record.served_by.last = SimpleNamespace(instance_id=instance)
        started = generation.GenerationStarted(prompt_tokens=100, cached_prompt_tokens=75)
        record.sinks = [SimpleNamespace(tokens_so_far=0, started_event=started)]
        self.records.append(record)
        return record

    def second(self, **tokens):
        self.now += 1
        self.rates.tick()
        return self.rates.told()

    def end(self, record, **facts):
        self.records.remove(record)
        self.rates.ended(record)
        started = record.sinks[0].started_event
        self.rates.counted(
            outcome(
                instance_id=record.served_by.last.instance_id,
                admitted_prompt_tokens=started.prompt_tokens,
                admitted_cached_tokens=started.cached_prompt_tokens,
                **facts,
            )
        )


@pytest.fixture
def running():
    return Running()


def test_running_requests_are_counted_before_their_end(running):
    record = running.begin()
    for second in range(1, 4):
        record.sinks[0].tokens_so_far = 30 * second
        told = running.second()

    assert told["tokens_per_second"] == 30
    assert told["instances"]["one"]["tokens_per_second"] == 30
    assert told["requests_open"] == 1


def test_each_token_is_counted_once_whenever_the_request_ends(running):
    record = running.begin()
    record.sinks[0].tokens_so_far = 20
    running.second()
    running.end(record, completion_tokens=30)
    running.second()
    told = running.second()

    assert told["tokens_per_second"] == 10  # 30 in three seconds
    assert running.second()["tokens_per_second"] == pytest.approx(10 / 3, abs=0.1)


def test_a_request_that_fails_counts_what_it_has_made(running):
    record = running.begin()
    record.sinks[0].tokens_so_far = 6
    running.end(record, reason=Reason.NEURON_LOST, broken_completion_tokens=6)

    assert running.second()["tokens_per_second"] == 2


def test_a_prompt_counts_once_in_the_share_that_came_from_caches(running):
    record = running.begin()
    running.second()
    told = running.second()
    running.end(record, completion_tokens=1)

    assert told["cached_share"] == 0.75
    assert running.second()["instances"]["one"]["cached_share"] == 0.75


def test_first_tokens_have_percentiles_that_forget(running):
    for milliseconds in range(1, 101):
        running.end(running.begin(), first_token_seconds=[milliseconds / 1000])

    told = running.second()["first_token_ms"]
    running.now += 400
    later = running.second()["first_token_ms"]

    assert told == {"p50": 51.0, "p95": 96.0}
    assert later == {"p50": None, "p95": None}


def test_instances_that_do_nothing_any_more_are_forgotten(running):
    running.end(running.begin("gone"), completion_tokens=5)
    running.second()
    assert "gone" in running.rates.told()["instances"]

    for _ in range(1500):
        running.second()

    assert running.rates.told()["instances"] == {}


def test_the_history_has_a_point_for_five_seconds_and_a_bound(running):
    for _ in range(1000):
        running.second()

    assert len(running.rates.history()) == 180
