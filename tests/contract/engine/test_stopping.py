"""When an output ends, and what of it is shown."""

import pytest

from services.neuron.engine_api.events import EndReason
from services.neuron.engine_api.task import StopParams
from tests.contract.engine.driving import Driver, deltas, ended, run, text, tokens
from tests.doubles.scripted import Script

WORDS = Script(words=("The", " quick", " brown", " fox", " jumps"))


@pytest.mark.parametrize(
    ("stop", "shown"),
    [
        (" brown", "The quick"),
        ("k br", "The quic"),
        ("quick brown fox", "The "),
        ("fox", "The quick brown "),
        ("The", ""),
    ],
)
def test_a_stop_string_cuts_wherever_it_lies(driver: Driver, stop: str, shown: str) -> None:
    model = driver.load(WORDS)

    events = run(model, driver.task(stop=StopParams(strings=(stop,))))

    assert text(events) == shown
    assert ended(events).reason is EndReason.STOP_STRING
    assert ended(events).stop_string == stop


def test_the_stop_string_may_be_kept(driver: Driver) -> None:
    model = driver.load(WORDS)
    stop = StopParams(strings=("k br",), include_stop_string=True)

    events = run(model, driver.task(stop=stop))

    assert text(events) == "The quick br"


def test_what_only_began_like_a_stop_string_is_shown(driver: Driver) -> None:
    model = driver.load(WORDS)
    stop = StopParams(strings=(" jumps over",))

    events = run(model, driver.task(stop=stop))

    assert text(events) == "The quick brown fox jumps"
    assert ended(events).reason is EndReason.END_OF_TURN


def test_characters_split_over_tokens_come_whole(driver: Driver) -> None:
    family = "👩‍👩‍👧".encode()
    pieces = [b"a", *[family[i : i + 3] for i in range(0, len(family), 3)], b" ok", "é".encode()]
    model = driver.load(Script(words=[b"go ", *pieces[1:]], width=256))

    events = run(model, driver.task())

    assert text(events) == "go 👩‍👩‍👧 oké"
    assert all("\ufffd" not in delta.text for delta in deltas(events))


def test_an_unfinished_character_is_marked_at_the_end(driver: Driver) -> None:
    model = driver.load(Script(words=[b"go", "👩".encode()[:2]]))

    events = run(model, driver.task())

    assert text(events) == "go\ufffd"


def test_a_stop_token_ends_the_turn(driver: Driver) -> None:
    model = driver.load(WORDS)
    whole = tokens(run(model, driver.task()))

    events = run(model, driver.task(stop=StopParams(token_ids=(whole[2],))))

    assert text(events) == "The quick"
    assert ended(events).reason is EndReason.END_OF_TURN
    assert ended(events).completion_tokens == 2


def test_ignore_eos_goes_on(driver: Driver) -> None:
    model = driver.load(WORDS)

    events = run(model, driver.task(stop=StopParams(ignore_eos=True, max_tokens=12)))

    assert ended(events).completion_tokens == 12
    assert ended(events).reason is EndReason.MAX_TOKENS
    assert "<|" not in text(events)


def test_min_tokens_puts_the_end_off(driver: Driver) -> None:
    model = driver.load(WORDS)

    events = run(model, driver.task(stop=StopParams(min_tokens=9, max_tokens=20)))

    assert ended(events).completion_tokens >= 9
    assert not set(tokens(events)[:9]) & set(model.info.eos_token_ids)


def test_a_resumed_stop_string_still_ends(driver: Driver) -> None:
    model = driver.load(WORDS)
    whole = tokens(run(model, driver.task()))
    stop = StopParams(strings=("quick brown",))

    events = run(model, driver.task(stop=stop, resume_token_ids=tuple(whole[:2])))

    assert text(events) == ""
    assert ended(events).reason is EndReason.STOP_STRING
