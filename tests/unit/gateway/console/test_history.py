"""What the console keeps of requests at their end."""

from typing import Any

from services.backplane.errors import Reason
from services.gateway.api.request import RequestRecord
from services.gateway.console.history import RequestHistory
from services.gateway.limits.usage import UsageCounts
from services.gateway.telemetry.outcome import RequestOutcome
from tests.unit.gateway.console.lines import line, outcome


def ended(history: RequestHistory, what: RequestOutcome, **facts: Any) -> None:
    history.ended(RequestRecord("openai_chat", "r"), line(**facts), what.model)
    history.counted(what)


def test_a_request_is_kept_and_its_tokens_counted_for_who_asked():
    history = RequestHistory(running=list, reported=UsageCounts("me"))
    served = outcome(principal="ann", neuron="cellar", prompt_tokens=7, completion_tokens=3)

    ended(history, served)

    assert [one.model for one in history.ledger.newest(5)] == ["tiny"]
    (row,) = history.usage.table("key", "1h")["rows"]
    assert (row["name"], row["prompt_tokens"], row["completion_tokens"]) == ("ann", 7, 3)
    (row,) = history.usage.table("neuron", "1h")["rows"]
    assert row["name"] == "cellar"


def test_a_request_that_ran_nowhere_is_nobody_s_neuron():
    history = RequestHistory(running=list, reported=UsageCounts("me"))

    ended(history, outcome(reason=Reason.NO_ROOM, has_failed=True), reason="NO_ROOM")

    (row,) = history.usage.table("neuron", "1h")["rows"]
    assert (row["name"], row["failed"]) == ("", 1)


def test_one_that_failed_counts_even_where_it_named_no_model():
    history = RequestHistory(running=list, reported=UsageCounts("me"))

    ended(history, outcome(reason=Reason.BAD_REQUEST, is_named=False, has_failed=True))

    (row,) = history.usage.table("key", "1h")["rows"]
    assert row["failed"] == 1


def test_a_listing_that_went_well_is_neither_kept_nor_counted():
    history = RequestHistory(running=list, reported=UsageCounts("me"))

    ended(history, outcome(model="", is_named=False), model="", event="request.finished")

    assert history.ledger.count == 0
    assert history.usage.table("key", "1h")["rows"] == []
