import itertools

import pytest

from cortex.v1 import conversation_pb2 as conversation
from services.neuron.chat.answer import ChatStyle
from services.neuron.chat.reasoning import FORMATS
from services.neuron.chat.tool_calls.formats import tool_parser
from services.neuron.chat.tool_calls.parsing.calls import Tools
from services.neuron.engine_api.events import Delta
from services.neuron.serving.delivery import Delivery
from services.neuron.serving.event_sink import EventSink
from tests.unit.neuron.chat.tool_calls.reading import TOOLS
from tests.unit.neuron.chat.tool_calls.test_cut import WRITTEN

TWO = '<tool_call>{"name": "a"}</tool_call> and <tool_call>{"name": "b"}</tool_call>'


class Sink(EventSink):
    """Hears of no end: that is not the delivery's."""

    def finished(self, event):
        raise AssertionError(event)

    def failed(self, error):
        raise AssertionError(error)


class Heard(Sink):
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


class Client:
    """What a client has been told, by any number of deliveries, and the tokens behind it."""

    def __init__(self):
        self.text, self.token_ids = "", []
        self.calls = {}

    def text_of(self, text, token_ids):
        self.text += text
        self.token_ids += token_ids


class Ear(Sink):
    """One delivery's sink."""

    def __init__(self, client):
        self._client = client

    def text(self, text, token_ids, logprobs):
        self._client.text_of(text, token_ids)

    def event(self, event, tokens=0):
        call = event.tool_call
        assert tokens == len(call.token_ids)
        self._client.token_ids += call.token_ids
        name, arguments, ended = self._client.calls.get(call.index, ("", "", False))
        assert not ended
        told = (name + call.name, arguments + call.arguments_json, call.incomplete)
        self._client.calls[call.index] = told


def deliver_from(client, format_name, tokens):
    """Goes on behind what the client was told, as far as `tokens` go; token ids are indices."""
    parser = tool_parser(format_name, TOOLS, lambda: "id")
    behind = list(client.token_ids)
    delivery = Delivery(parser=parser, sink=Ear(client), made=behind, credit=None)
    delivery.replay([tokens[token_id] for token_id in behind])
    for token_id in range(len(behind), len(tokens)):
        delivery.take(Delta(1, tokens[token_id], (token_id,)))
    return delivery


@pytest.mark.parametrize("lead", ["", "Let me look: "])
@pytest.mark.parametrize("format_name", WRITTEN)
def test_an_answer_that_goes_on_elsewhere_is_told_once(format_name, lead):
    output = lead + WRITTEN[format_name]
    for size in (1, 4, 13):
        tokens = [output[start : start + size] for start in range(0, len(output), size)]
        alone = Client()
        deliver_from(alone, format_name, tokens).finish(is_cut=False)

        for cut in range(len(tokens) + 1):
            client = Client()
            deliver_from(client, format_name, tokens[:cut])
            deliver_from(client, format_name, tokens).finish(is_cut=False)

            assert (alone.text, alone.calls) == (client.text, client.calls), (size, cut)
            assert list(range(len(tokens))) == client.token_ids


def test_reasoning_that_was_made_elsewhere_is_counted():
    style = ChatStyle(FORMATS["think"], "hermes")
    made = style.answer(conversation.Chat(), tail="<think>\n", constraint=None, new_id=str)
    heard = Heard()
    delivery = Delivery(parser=made.parser, sink=heard, made=(0, 1, 2), credit=None)

    delivery.replay(["Hm", ", well", ".</think>"])
    delivery.take(Delta(1, "Yes", (3,)))

    assert delivery.reasoning_tokens == 3
    assert heard.texts == ["Yes"]
    assert delivery.made == [0, 1, 2, 3]
