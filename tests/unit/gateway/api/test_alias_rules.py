from typing import get_args

import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import registry_service_pb2 as registry
from services.gateway.api.alias_rules import follow, follow_in_chat
from services.registry.catalogue.aliases import Stripped


def full():
    """A request that sets everything which an alias may take out."""
    request = generation.GenerateRequest(
        chat=conversation.Chat(tools=[conversation.Tool(name="t")]),
        sampling=generation.Sampling(
            temperature=1.5,
            top_p=0.9,
            top_k=3,
            min_p=0.1,
            repetition_penalty=1.1,
            frequency_penalty=1,
            presence_penalty=1,
            typical_p=0.9,
            seed=7,
            logit_bias={1: 2},
        ),
        stop=generation.StopRules(
            max_tokens=5, min_tokens=2, stop_strings=["x"], stop_token_ids=[1]
        ),
        constraint=generation.OutputConstraint(regex="a"),
        reasoning=generation.Reasoning(enabled=True),
    )
    request.chat.messages.add(role=conversation.ROLE_USER).parts.add(text="Hi")
    return request


def after(rules, request=None):
    request = request or full()
    follow(registry.AliasRules(**rules), [request])
    return request


STRIPPABLE = get_args(Stripped)


@pytest.mark.parametrize("name", STRIPPABLE)
def test_all_that_may_be_stripped_is_taken_out(name):
    assert after({"stripped": [name]}).ByteSize() < full().ByteSize()


def test_everything_stripped_leaves_the_words_alone():
    request = after({"stripped": STRIPPABLE})

    assert request.chat.messages == full().chat.messages
    assert 0 == request.sampling.ByteSize() + request.stop.ByteSize()
    assert [] == list(request.chat.tools)
    assert not request.HasField("constraint")
    assert not request.HasField("reasoning")


def test_a_default_is_for_those_who_set_nothing_and_force_for_everybody():
    values = registry.RequestValues(max_tokens=9, reasoning=False)
    values.sampling.temperature = 0.5

    bare = after({"defaults": values}, generation.GenerateRequest())
    set_by_client = after({"defaults": values})
    forced = after({"forced": values})

    assert (0.5, 9) == (bare.sampling.temperature, bare.stop.max_tokens)
    assert (1.5, 5) == (set_by_client.sampling.temperature, set_by_client.stop.max_tokens)
    assert (0.5, 9) == (forced.sampling.temperature, forced.stop.max_tokens)
    assert (False, True, False) == (
        bare.reasoning.enabled,
        set_by_client.reasoning.enabled,
        forced.reasoning.enabled,
    )


def test_what_is_stripped_gets_the_default():
    values = registry.RequestValues(max_tokens=9)

    request = after({"stripped": ["max_tokens"], "defaults": values})

    assert 9 == request.stop.max_tokens


def test_a_system_prompt_goes_before_the_clients_own():
    own = full()
    own.chat.messages.insert(0, conversation.Message(role=conversation.ROLE_SYSTEM))
    own.chat.messages[0].parts.add(text="Mine.")

    with_own, without = after({"system": "Ours."}, own), after({"system": "Ours."})

    assert ["Ours.\n\n", "Mine."] == [part.text for part in with_own.chat.messages[0].parts]
    assert [conversation.ROLE_SYSTEM, conversation.ROLE_USER] == [
        message.role for message in without.chat.messages
    ]
    raw = generation.GenerateRequest(text="Once")
    assert "Once" == after({"system": "Ours."}, raw).text


def test_without_rules_a_request_stays_as_it_is():
    request = full()

    follow(None, [request])

    assert full() == request


def test_what_is_counted_is_the_chat_that_would_be_answered():
    rules = registry.AliasRules(system="Be brief.", stripped=["tools", "seed"])
    counted, answered = full().chat, full()

    follow_in_chat(rules, counted)
    follow(rules, [answered])
    follow_in_chat(None, counted)

    assert answered.chat == counted
