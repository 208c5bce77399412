"""Instances that fail: before the first delta, after it, and without an alternative."""

from __future__ import annotations

import asyncio

import pytest

from cortex.v1 import model_pb2
from services.backplane.errors import FleetError, Reason
from tests.doubles.scripted_neuron import Script, reasoning, text
from tests.doubles.stand_in_registry import placed
from tests.integration.gateway.fleet import Fleet, contents

REFUSALS = [Reason.NEURON_LOST, Reason.INSTANCE_DRAINING, Reason.QUEUE_FULL, Reason.ENGINE_FAILED]


@pytest.mark.parametrize("reason", REFUSALS, ids=lambda reason: reason.value)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_before_the_first_delta_is_tried_elsewhere(
    fleet: Fleet, reason: Reason, stream: bool
) -> None:
    refusing = await fleet.add_neuron("a", Script(refuse=FleetError(reason, "No.")))
    healthy = await fleet.add_neuron("b")
    fleet.gateway.services.dispatch._outstanding.take("b/tiny")  # so that `a` is asked first

    body = await fleet.stream_text() if stream else (await fleet.chat()).text

    assert len(refusing.requests) == len(healthy.requests) == 1
    assert "error" not in body
    if stream:
        assert "".join(contents(body)) == "Hello world"


async def test_a_neuron_that_dies_before_the_first_delta_is_not_noticed(fleet: Fleet) -> None:
    await fleet.add_neuron("a", Script(die_after=0))
    await fleet.add_neuron("b")
    fleet.gateway.services.dispatch._outstanding.take("b/tiny")

    assert "".join(contents(await fleet.stream_text())) == "Hello world"


async def test_an_unstreamed_answer_is_begun_anew_after_any_delta(fleet: Fleet) -> None:
    await fleet.add_neuron("a", Script(die_after=1))
    await fleet.add_neuron("b")
    fleet.gateway.services.dispatch._outstanding.take("b/tiny")

    response = await fleet.chat()

    assert response.json()["choices"][0]["message"]["content"] == "Hello world"


BREAKS = pytest.mark.parametrize(
    "script",
    [
        Script(fail_after=1),
        Script(die_after=1),
        Script(fail_after=1, fail=FleetError(Reason.SHUTTING_DOWN, "Bye.")),
    ],
    ids=["engine fails", "neuron dies", "neuron is drained"],
)


@BREAKS
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_breaks_off_goes_on_elsewhere(
    fleet: Fleet, script: Script, stream: bool
) -> None:
    await fleet.add_neuron("a", script)
    spare = await fleet.add_neuron("b")
    fleet.gateway.services.dispatch._outstanding.take("b/tiny")

    if stream:
        body = await fleet.stream_text()
        said = "".join(contents(body))
        assert '"error"' not in body
        assert body.count('"finish_reason":"stop"') == 1
    else:
        answer = (await fleet.chat()).json()
        said = answer["choices"][0]["message"]["content"]
        assert answer["usage"]["completion_tokens"] == 2

    assert said == "Hello world"
    # a token that a neuron has sent in the moment of its death may be lost with it
    again = spare.requests[0]
    is_known = list(again.resume_from.ids) == [0] and again.resume_fingerprint == "f1"
    assert is_known or (script.die_after and not again.resume_from.ids)


async def test_an_unstreamed_answer_is_begun_anew_where_the_files_are_others(fleet: Fleet) -> None:
    gone = FleetError(Reason.SHUTTING_DOWN, "Bye.")
    await fleet.add_neuron("a", Script(fail_after=1, fail=gone))
    updated = await fleet.add_neuron("b")
    refused = FleetError(Reason.INSTANCE_MISMATCH, "Other files.")
    updated.scripts = [Script(refuse=refused), Script([text("Good"), text(" day")])]
    fleet.gateway.services.dispatch._outstanding.take("b/tiny")

    answer = (await fleet.chat()).json()

    assert answer["choices"][0]["message"]["content"] == "Good day"
    assert not updated.requests[-1].HasField("resume_from")
    assert not updated.requests[-1].resume_fingerprint


async def test_a_moved_answer_begins_once_in_its_dialect(fleet: Fleet) -> None:
    await fleet.add_neuron("a", Script([reasoning("Hm"), text("Hi")], die_after=1))
    await fleet.add_neuron("b", Script([reasoning("Hm"), text("Hi")]))
    fleet.gateway.services.dispatch._outstanding.take("b/tiny")

    response = await fleet.client.post(
        "/v1/messages",
        json={
            "model": "tiny",
            "max_tokens": 5,
            "stream": True,
            "messages": [{"role": "user", "content": "Hi"}],
        },
    )

    events = [line[7:] for line in response.text.splitlines() if line.startswith("event: ")]
    assert events.count("message_start") == events.count("message_stop") == 1
    assert events.count("content_block_start") == 2
    assert '"thinking":"Hm"' in response.text
    assert '"text":"Hi"' in response.text


async def test_any_number_of_drains_is_outlived(bare: Fleet) -> None:
    await bare.start(attempts=2)
    words = [text(word) for word in ["One", "answer", "over", "five", "instances."]]
    drained = FleetError(Reason.INSTANCE_GONE, "Its time was over.")
    turns = [Script(words, fail_after=count, fail=drained) for count in range(1, 5)]
    turns.append(Script(words))
    for name in "abcde":
        (await bare.add_neuron(name)).scripts = turns  # whoever comes next takes the next one

    assert "".join(contents(await bare.stream_text())) == "Oneansweroverfiveinstances."
    assert [len(neuron.requests) for neuron in bare.neurons] == [1] * 5


@BREAKS
@pytest.mark.parametrize("old", ["a", "b"])
async def test_where_a_neuron_cannot_resume_it_is_an_error_frame(
    fleet: Fleet, script: Script, old: str
) -> None:
    for name in ("a", "b"):
        neuron = await fleet.add_neuron(name, script if name == "a" else Script())
        neuron.resumes = name != old
        await fleet.announce(neuron)
    spare = fleet.neurons[1]
    fleet.gateway.services.dispatch._outstanding.take("b/tiny")

    body = await fleet.stream_text()

    assert contents(body) == ["Hello"]
    assert '"error"' in body
    assert '"finish_reason":"stop"' not in body
    assert not spare.requests


async def test_what_a_neuron_that_cannot_resume_has_told_is_not_gone_on_behind(
    fleet: Fleet,
) -> None:
    old = await fleet.add_neuron("a", Script([reasoning("Hm"), text("Hi")], die_after=1))
    old.resumes = False  # it tells tokens of reasoning, but not of which files they are
    await fleet.announce(old)
    spare = await fleet.add_neuron("b")
    fleet.gateway.services.dispatch._outstanding.take("b/tiny")

    assert '"error"' in await fleet.stream_text()
    assert not spare.requests


async def test_an_anthropic_stream_ends_with_its_own_error_event(fleet: Fleet) -> None:
    await fleet.add_neuron("a", Script(fail_after=1))

    response = await fleet.client.post(
        "/v1/messages",
        json={
            "model": "tiny",
            "max_tokens": 5,
            "stream": True,
            "messages": [{"role": "user", "content": "Hi"}],
        },
    )

    assert response.status_code == 200
    assert "event: error" in response.text
    assert "message_stop" not in response.text


async def test_a_failure_of_the_request_itself_is_not_tried_elsewhere(fleet: Fleet) -> None:
    error = FleetError(Reason.CONTEXT_TOO_LONG, "The prompt has 9 tokens; 4 fit.")
    await fleet.add_neuron("a", Script(refuse=error))
    await fleet.add_neuron("b", Script(refuse=error))

    response = await fleet.chat(stream=True)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert sum(len(neuron.requests) for neuron in fleet.neurons) == 1


async def test_without_another_instance_the_neurons_own_words_reach_the_client(
    fleet: Fleet,
) -> None:
    full = FleetError(Reason.QUEUE_FULL, "The queue is full.", retry_after_seconds=12)
    await fleet.add_neuron("a", Script(refuse=full))

    response = await fleet.chat(stream=True)

    assert response.status_code == 429
    assert response.headers["retry-after"] == "12"
    assert response.json()["error"]["code"] == "queue_full"
    assert not fleet.registry.ensured


async def test_a_lost_instance_is_placed_anew_without_the_one_that_failed(fleet: Fleet) -> None:
    gone = await fleet.add_neuron("a", Script(refuse=FleetError(Reason.INSTANCE_GONE, "Gone.")))
    spare = await fleet.add_neuron("b", models=())
    fleet.registry.steps = [placed("b", spare.address, "b/tiny", "tiny")]

    response = await fleet.chat()

    assert response.status_code == 200
    assert len(gone.requests) == len(spare.requests) == 1
    assert list(fleet.registry.ensured[0].excluded_instance_ids) == ["a/tiny"]


ONLY_LOST = FleetError(
    Reason.NO_ROOM, "All were tried.", retry_after_seconds=1.0, facts={"cause": "replicas"}
)
LOST = FleetError(Reason.NEURON_LOST, "No sign of life.")


async def asked_registry(fleet: Fleet) -> None:
    """Waits until the registry has been asked for a placement."""
    async with asyncio.timeout(60):
        while not fleet.registry.ensured:
            await asyncio.sleep(0.01)


async def test_the_only_instance_that_may_be_is_waited_for_where_its_neuron_was_lost(
    fleet: Fleet,
) -> None:
    """The registry takes the neuron for alive, and says that nothing may be beside it."""
    neuron = await fleet.add_neuron("a", Script(refuse=LOST), Script())
    fleet.registry.steps = [ONLY_LOST]

    asked = asyncio.create_task(fleet.chat())
    await asked_registry(fleet)
    await fleet.announce(neuron)

    assert (await asked).status_code == 200
    assert len(neuron.requests) == 2


async def test_a_neuron_that_the_registry_misses_later_is_replaced_then(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron("a", Script(refuse=LOST))
    spare = await fleet.add_neuron("b", models=())
    fleet.registry.steps = [ONLY_LOST]

    asked = asyncio.create_task(fleet.chat())
    await asked_registry(fleet)
    fleet.registry.steps = [placed("b", spare.address, "b/tiny", "tiny")]

    assert (await asked).status_code == 200
    assert len(neuron.requests) == len(spare.requests) == 1


async def test_a_recovering_instance_is_waited_for_and_not_placed_twice(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron()
    neuron.state = model_pb2.INSTANCE_STATE_RECOVERING
    await fleet.announce(neuron)

    asked = asyncio.create_task(fleet.chat())
    await neuron.until(lambda: True)
    neuron.state = model_pb2.INSTANCE_STATE_READY
    await fleet.announce(neuron)

    assert (await asked).status_code == 200
    assert not fleet.registry.ensured


async def test_an_instance_whose_worker_came_back_is_used_again(fleet: Fleet) -> None:
    lost = FleetError(Reason.WORKER_LOST, "The worker died.")
    neuron = await fleet.add_neuron("a", Script(refuse=lost), Script())

    asked = asyncio.create_task(fleet.chat())
    await neuron.until(lambda: neuron.requests)
    neuron.state = model_pb2.INSTANCE_STATE_RECOVERING
    await fleet.announce(neuron)
    neuron.state = model_pb2.INSTANCE_STATE_READY
    await fleet.announce(neuron)

    assert (await asked).status_code == 200
    assert len(neuron.requests) == 2
    assert not fleet.registry.ensured


async def test_attempts_are_bounded(bare: Fleet) -> None:
    await bare.start(attempts=2)
    for name in ("a", "b", "c"):
        await bare.add_neuron(name, Script(refuse=FleetError(Reason.NEURON_LOST, "No.")))

    response = await bare.chat()

    assert response.status_code == 503
    assert sum(len(neuron.requests) for neuron in bare.neurons) == 2


async def test_a_silent_neuron_is_given_up_and_another_one_answers(bare: Fleet) -> None:
    await bare.start(first_event_seconds=0.2, keepalive_seconds=0.2)
    silent = await bare.add_neuron("a", Script(silent=True))
    await bare.add_neuron("b")
    bare.gateway.services.dispatch._outstanding.take("b/tiny")

    response = await bare.chat()

    assert response.status_code == 200
    await silent.until(lambda: silent.cancelled)


async def test_a_generation_that_falls_silent_is_ended(bare: Fleet) -> None:
    await bare.start(idle_seconds=0.2, keepalive_seconds=0.2)
    gate = asyncio.Event()
    neuron = await bare.add_neuron("a", Script([text("one"), text("two")], gate=gate))

    body = await bare.stream_text()

    assert contents(body) == ["one"]
    assert "timeout" in body
    await neuron.until(lambda: neuron.cancelled)
