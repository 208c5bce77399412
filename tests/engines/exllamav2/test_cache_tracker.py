"""Pages that outlive their model, and what is told of them, with the library's own cache."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.neuron.engine_api.cache import HeldPrefix
from services.neuron.engine_api.model import KvStorePlan, KvTier
from services.neuron.engine_api.task import Prompt, PromptMarks, SamplingParams, StopParams, Task
from services.neuron.engines.common.kv_store import hibernation
from services.neuron.engines.common.kv_store.cache_reporter import LOOK_SECONDS
from services.neuron.engines.common.kv_store.sealing import make_key
from services.neuron.engines.exllamav2 import assembling
from tests.contract.engine.driving import run, started, step_until, tokens

IDS = itertools.count(1)
CLOCK = itertools.count(0, 10 * LOOK_SECONDS)
GREEDY = SamplingParams(temperature=0)
LENGTH = 600
FORMATS = ["fp16", "q8", "q4"]
Fresh = Callable[..., Any]


@pytest.fixture
def kept(loaded: Any, folder: Path, tmp_path: Path) -> Fresh:
    """Loads the same weights once more, with the same store."""
    (tmp_path / "kv").mkdir()
    tier = KvTier(str(tmp_path / "kv"), 64 << 20)

    def fresh(
        fingerprint: str = "f",
        *,
        keeps_named: bool = False,
        key_file: str = "",
        most_bytes: int = 64 << 20,
        **more: Any,
    ) -> Any:
        bounded = KvTier(tier.folder, most_bytes)
        plan = KvStorePlan((bounded,), fingerprint, keeps_named, key_file)
        more = {"max_sequences": 4, "max_context_tokens": 1024, **more}
        return loaded(folder, kv_store=plan, **more)

    return fresh


def text(length: int, seed: int) -> list[int]:
    return [3 + (i * 37 + seed * 91 + i * i // 7) % 240 for i in range(length)]


def name(principal: str, ids: list[int]) -> bytes:
    return hashlib.blake2b(f"{principal}\0{ids}".encode(), digest_size=16).digest()


def task(ids: list[int], principal: str = "", **more: Any) -> Task:
    more = {"stop": StopParams(max_tokens=12, ignore_eos=True), "sampling": GREEDY, **more}
    marks = PromptMarks(whole=name(principal, ids))
    return Task(
        next(IDS), "i", Prompt(token_ids=tuple(ids)), principal=principal, marks=marks, **more
    )


def ask(model: Any, ids: list[int], principal: str = "", **more: Any) -> tuple[int, list[int]]:
    """Cached tokens and output of one greedy task."""
    events = run(model, task(ids, principal, **more))
    return started(events).cached_tokens, tokens(events)


def files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.kv"))


@pytest.mark.parametrize("cache_format", FORMATS)
def test_the_next_turn_after_a_swap_reads_the_new_message_alone(
    kept: Fresh, cache_format: str
) -> None:
    first = kept(cache_format=cache_format)
    prompt = text(LENGTH, 1)
    _, answer = ask(first, prompt)
    turn = [*prompt, *answer, *text(30, 2)]
    count, size = first.hibernate()

    cached, output = ask(kept(cache_format=cache_format), turn)

    assert count == 1
    assert size > 0
    assert cached >= LENGTH - 1
    assert output == ask(kept("other", cache_format=cache_format), turn)[1]  # a cold run


@pytest.mark.parametrize("length", [200, 255, 256, 257, 511, 512, 513, 600])
def test_a_prompt_of_any_length_gives_the_same_answer_again(kept: Fresh, length: int) -> None:
    first = kept()
    prompt = text(length, 1)
    expected = ask(first, prompt)[1]
    first.hibernate()

    cached, output = ask(kept(), prompt)

    assert output == expected
    assert cached >= length - 2


def test_a_prompt_that_parts_within_a_page_has_what_is_alike(kept: Fresh) -> None:
    first = kept()
    ask(first, text(LENGTH, 1))
    first.hibernate()
    other = [*text(LENGTH, 1)[:300], *text(200, 5)]

    cached, output = ask(kept(), other)

    assert 299 <= cached <= 301
    assert output == ask(kept("other"), other)[1]


@pytest.mark.parametrize("change", ["files", "principal", "build", "format", "room"])
def test_nothing_is_restored_across(
    kept: Fresh, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept(keeps_named=True)
    prompt = text(LENGTH, 1)
    expected = ask(first, prompt, "alice")[1]
    assert first.hibernate()[0] == 1

    match change:
        case "files":
            cached, _ = ask(kept("g", keeps_named=True), prompt, "alice")
        case "principal":
            cached, output = ask(kept(keeps_named=True), prompt, "bob")
            assert output == expected
        case "format":
            cached, _ = ask(kept(keeps_named=True, cache_format="q8"), prompt, "alice")
        case "room":
            cached, _ = ask(kept(keeps_named=False), prompt, "alice")
        case _:
            monkeypatch.setattr(assembling, "_speculation", str)
            cached, _ = ask(kept(keeps_named=True), prompt, "alice")

    assert cached == 0


def test_an_adapters_and_a_drafts_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    before = assembling.files_digest(tmp_path)
    (tmp_path / "a").write_bytes(b"two")

    assert assembling.files_digest(tmp_path) != before


def test_what_a_draft_model_has_read_comes_back_with_it(kept: Fresh, folder: Path) -> None:
    first = kept(draft_path=str(folder))
    prompt = text(LENGTH, 1)
    expected = ask(first, prompt)[1]
    first.hibernate()

    cached, output = ask(kept(draft_path=str(folder)), prompt)

    assert (cached >= LENGTH - 2, output) == (True, expected)
    assert ask(kept(), prompt)[0] == 0  # without it the pages are others


def test_a_damaged_file_is_read_as_a_prompt(kept: Fresh, tmp_path: Path) -> None:
    first = kept()
    prompt = text(LENGTH, 1)
    expected = ask(first, prompt)[1]
    first.hibernate()
    (file,) = files(tmp_path)
    damaged = bytearray(file.read_bytes())
    damaged[-9] ^= 1
    file.write_bytes(damaged)

    assert ask(kept(), prompt) == (0, expected)
    assert not file.exists()


def test_what_is_encrypted_comes_back_with_the_same_key_alone(kept: Fresh, tmp_path: Path) -> None:
    keys = [tmp_path / "a.key", tmp_path / "b.key"]
    for key in keys:
        make_key(key)
    prompt = text(LENGTH, 1)
    first = kept(key_file=str(keys[0]), keeps_named=True)
    expected = ask(first, prompt, "alice")[1]
    first.hibernate()

    cached, output = ask(kept(key_file=str(keys[0]), keeps_named=True), prompt, "alice")
    assert (cached >= LENGTH - 2, output) == (True, expected)
    other = kept(key_file=str(keys[1]), keeps_named=True)
    assert ask(other, prompt, "alice") == (0, expected)
    assert not files(tmp_path)


def test_the_bound_of_the_store_holds(kept: Fresh, tmp_path: Path) -> None:
    bound = 400_000
    first = kept(most_bytes=bound)
    for seed in range(4):
        ask(first, text(LENGTH, seed))
    first.hibernate()

    sizes = [file.stat().st_size for file in files(tmp_path)]
    assert sizes
    assert sum(sizes) <= bound


def test_a_file_that_is_read_too_slowly_is_left_and_the_prompt_is_read(
    kept: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept()
    prompt = text(LENGTH, 1)
    expected = ask(first, prompt)[1]
    first.hibernate()
    monkeypatch.setattr(hibernation, "MOST_RESTORE_SECONDS", 0.0)

    assert ask(kept(), prompt) == (0, expected)


def test_a_stream_whose_worker_went_goes_on_from_what_was_saved_of_it(kept: Fresh) -> None:
    prompt = text(LENGTH, 1)
    expected = ask(kept("other"), prompt)[1]
    first = kept()
    stream = task(prompt)
    first.submit(stream, prompt)
    made = tokens(step_until(first, lambda events: len(tokens(events)) >= 5))
    first.hibernate()  # while it runs

    cached, rest = ask(kept(), prompt, resume_token_ids=tuple(made))

    assert cached == LENGTH
    assert [*made, *rest] == expected


def test_trials_leave_no_file(kept: Fresh, tmp_path: Path) -> None:
    model = kept()

    assert model.hibernate() == (0, 0)
    assert not files(tmp_path)


def test_nobody_reuses_what_anothers_prompt_has_left(kept: Fresh) -> None:
    model = kept()
    for length in (2, 100, 256, 257, LENGTH):
        prompt = text(length, length)
        expected = ask(model, prompt, "alice")
        assert expected[0] == 0
        assert ask(model, prompt, "bob") == expected
        assert ask(model, prompt, "alice")[0] >= max(0, length - 2)


def test_output_that_fills_the_first_page_is_its_principals_alone(kept: Fresh) -> None:
    model = kept()
    prompt = text(100, 7)
    long = StopParams(max_tokens=300, ignore_eos=True)
    _, answer = ask(model, prompt, "alice", stop=long)
    _, same = ask(model, prompt, "bob", stop=long)  # both pages have the same tokens
    assert same == answer
    turn = [*prompt, *answer, 9]

    assert ask(model, turn, "eve")[0] == 0
    assert ask(model, turn, "alice")[0] >= 398
    assert ask(model, turn, "bob")[0] >= 398


def follow(model: Any, told: dict[bytes, HeldPrefix]) -> None:
    """Takes in the news, as a gateway does."""
    news = model.cache_changes(next(CLOCK))
    if news is not None:
        for digest in news.dropped:
            del told[digest]
        told.update({one.digest: one for one in news.held})


def test_what_was_read_is_told_and_what_is_overwritten_is_not(kept: Fresh) -> None:
    model, told = kept(cache_tokens=1024), dict[bytes, HeldPrefix]()
    ask(model, text(300, 1), "ann")
    follow(model, told)

    assert told[name("ann", text(300, 1))].tokens == 300
    assert model.cache_changes(next(CLOCK)) is None
    for seed in (2, 3, 4):
        ask(model, text(500, seed), "ann")
    follow(model, told)

    assert name("ann", text(300, 1)) not in told


def test_what_is_saved_is_told_by_the_next_load_with_the_time_it_takes(kept: Fresh) -> None:
    first, told = kept(keeps_named=True), dict[bytes, HeldPrefix]()
    ask(first, text(400, 1), "ann")
    first.hibernate()

    second = kept(keeps_named=True)
    follow(second, told)

    one = told[name("ann", text(400, 1))]
    assert one.tokens == 400
    assert one.restore_seconds > 0
    ask(second, [*text(400, 1), 7], "ann")
    follow(second, told)
    assert told[name("ann", text(400, 1))].restore_seconds == 0


@pytest.mark.parametrize("seed", range(3))
def test_all_that_is_told_is_held_and_for_nobody_else(kept: Fresh, seed: int) -> None:
    """Whatever runs, over swaps too: what goes on from a told beginning need not read it."""
    dice = random.Random(seed)
    fields = {"keeps_named": True, "cache_tokens": 2048}
    model, told = kept(**fields), dict[bytes, HeldPrefix]()
    prompts: dict[bytes, tuple[str, list[int]]] = {}
    for _ in range(12):
        if dice.random() < 0.2:
            model.hibernate()
            model, told = kept(**fields), {}
        principal = dice.choice(["ann", "bob", ""])
        ids = text(dice.randint(150, 700), dice.randint(0, 2))
        if prompts and dice.random() < 0.4:  # a turn more of what somebody has asked
            _, before = dice.choice(list(prompts.values()))
            ids = [*before, *text(dice.randint(1, 60), 9)][:950]
        prompts[name(principal, ids)] = principal, ids
        ask(model, ids, principal)
        follow(model, told)
        for digest, one in told.items():
            owner, known = prompts[digest]
            if one.restore_seconds:
                assert model.compare([*known, 5], owner).saved_tokens >= one.tokens
            else:
                assert model.compare([*known, 5], owner).cached_tokens >= one.tokens
        compared = model.compare([*ids, 5], "eve")
        assert (compared.cached_tokens, compared.saved_tokens, compared.held) == (0, 0, "")
    digest, one = dice.choice([pair for pair in told.items() if not pair[1].restore_seconds])
    owner, known = prompts[digest]
    assert ask(model, [*known, 5], owner)[0] >= one.tokens - 1


def test_where_a_prompt_parts_from_what_is_held_is_shown_as_text(kept: Fresh) -> None:
    model = kept()
    ask(model, [70] * 300)

    compared = model.compare([*[70] * 290, *[80] * 20], "")

    assert compared.cached_tokens == 290
    assert set(compared.alike) != set(compared.asked) == set(compared.asked[:1])
    assert compared.held[:9] == compared.alike[:9]  # behind them it has its answer
