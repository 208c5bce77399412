"""What the console keeps of requests at their end."""

from types import SimpleNamespace
from typing import Any

from services.backplane.errors import Reason
from services.gateway.api.access_log import RequestRecord
from services.gateway.console.history import RequestHistory
from tests.unit.gateway.console.lines import line, outcome


def ended(principal: str = "ann", neuron: str = "cellar") -> Any:
    record: Any = RequestRecord("openai_chat", "r")
    record.principal = principal
    record.served_by.last = SimpleNamespace(neuron=neuron, instance_id="one")
    return record


def test_a_request_is_kept_and_its_tokens_counted_for_who_asked():
    history = RequestHistory(running=list)

    history.ended(ended(), outcome(prompt_tokens=7, completion_tokens=[3]), line())

    assert [one.model for one in history.ledger.newest(5)] == ["tiny"]
    (row,) = history.usage.table("key", "1h")["rows"]
    assert (row["name"], row["prompt_tokens"], row["completion_tokens"]) == ("ann", 7, 3)
    (row,) = history.usage.table("neuron", "1h")["rows"]
    assert row["name"] == "cellar"


def test_a_request_that_ran_nowhere_is_nobody_s_neuron():
    history = RequestHistory(running=list)
    record: Any = RequestRecord("openai_chat", "r")

    history.ended(record, outcome(reason=Reason.NO_ROOM), line(reason="NO_ROOM"))

    (row,) = history.usage.table("neuron", "1h")["rows"]
    assert (row["name"], row["failed"]) == ("", 1)


def test_a_listing_that_went_well_is_neither_kept_nor_counted():
    history = RequestHistory(running=list)

    history.ended(ended(), outcome(model=""), line(model="", event="request.finished"))

    assert history.ledger.count == 0
    assert history.usage.table("key", "1h")["rows"] == []
