import itertools

import pytest

from services.neuron.chat.tool_calls.formats import tool_parser
from services.neuron.chat.tool_calls.parsing.calls import Tools
from services.neuron.engine_api.events import Delta
from services.neuron.serving.delivery import Delivery

TWO = '<tool_call>{"name": "a"}</tool_call> and <tool_call>{"name": "b"}</tool_call>'


class Heard:
    """A sink that remembers."""

    def __init__(self):
        self.texts, self.calls = [], []

    def text(self, text, token_ids, logprobs):
        self.texts.append(text)

    def event(self, event, tokens=0):
        self.calls.append(event.tool_call)


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def deliver(heard):
    def deliver(most_calls):
        numbers = itertools.count()
        parser = tool_parser("hermes", Tools({"a": {}, "b": {}}), lambda: f"id{next(numbers)}")
        return Delivery(parser=parser, sink=heard, made=(), credit=None, most_calls=most_calls)

    return deliver


@pytest.mark.parametrize("chunk", [1, 7, len(TWO)])
def test_a_client_that_takes_one_call_gets_one(deliver, heard, chunk):
    delivery = deliver(1)

    for start in range(0, len(TWO), chunk):
        if not delivery.is_done:
            delivery.take(Delta(1, TWO[start : start + chunk], (5,)))

    assert delivery.is_done
    assert {0} == {call.index for call in heard.calls}
    assert " and " == "".join(heard.texts)


def test_without_a_limit_all_calls_are_told(deliver, heard):
    delivery = deliver(None)

    delivery.take(Delta(1, TWO, (5,)))

    assert not delivery.is_done
    assert ["a", "b"] == [call.name for call in heard.calls if call.name]


@pytest.mark.parametrize(("value", "is_called"), [("1", True), ("now(1)", False)])
def test_a_call_that_cannot_be_read_is_none_to_make(deliver, value, is_called):
    delivery = deliver(None)
    call = f'{{"name": "a", "arguments": {{"v": {value}}}}}'

    delivery.take(Delta(1, f"<tool_call>{call}</tool_call>", (5,)))

    assert delivery.has_called is is_called
