"""As many threads compute as find a core for themselves."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engines.llamacpp.batch import threads
from services.neuron.engines.llamacpp.batch.threads import FreeCores, Threads, thread_count
from services.neuron.engines.llamacpp.library.library import Library
from tests.doubles import random_llama
from tests.unit.neuron.engines.llamacpp.batch.test_loop import PROMPT, output, run
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel


@pytest.mark.parametrize(
    ("now", "cores", "wanted"),
    [
        (8, 8.0, 8),
        (8, 16.0, 8),
        (8, 7.6, 8),  # the gateway's share of a core, say
        (8, 5.1, 5),
        (2, 1.33, 1),  # one neighbour on two cores gets two thirds of one
        (1, 1.0, 1),  # and the whole of it, once it has it alone
        (1, 0.4, 1),
        (5, 5.9, 5 + 1),
        (5, 5.6, 5),
        (1, 16.0, 8),  # the neighbours have gone
    ],
)
def test_the_cores_that_others_leave_are_used(now: int, cores: float, wanted: int) -> None:
    assert thread_count(now, most=8, cores=cores) == wanted


@given(st.integers(1, 64), st.integers(1, 64), st.floats(0, 128))
def test_it_is_never_out_of_bounds_and_settles_at_once(now: int, most: int, cores: float) -> None:
    count = thread_count(min(now, most), most=most, cores=cores)

    assert 1 <= count <= most
    assert thread_count(count, most=most, cores=cores) == count


def test_idle_cores_and_its_own_are_left_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = FreeCores()
    assert cores.measure() is None  # nothing to compare with
    assert cores.measure() is None  # just looked

    monkeypatch.setattr(threads, "_WINDOW_SECONDS", 0.0)
    spent = sum(range(5_000_000))  # the process has used a core meanwhile
    measured = cores.measure()

    assert spent
    assert measured is not None
    assert 0 <= measured <= 2 * len(os.sched_getaffinity(0))  # the kernel counts in ticks


def test_a_look_long_ago_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = FreeCores()
    cores.measure()
    monkeypatch.setattr(threads, "_WINDOW_SECONDS", 0.0)
    monkeypatch.setattr(threads, "_STALE_SECONDS", 0.0)

    assert cores.measure() is None


def test_a_generation_goes_on_while_its_threads_come_and_go(
    monkeypatch: pytest.MonkeyPatch, library: Library, load: LoadModel, tmp_path: Path
) -> None:
    path = random_llama.build(tmp_path / "r.gguf")
    expected = output(run(load(path, max_sequences=2, max_context_tokens=1024, threads=1), PROMPT))
    told: list[int] = []
    set_n_threads = library.set_n_threads

    def note(context: int, count: int, count_of_prompts: int) -> None:
        told.append(count)
        set_n_threads(context, count, count_of_prompts)

    def measures() -> Iterator[float]:
        while True:
            yield from (1.0, 4.0)

    measured = measures()
    monkeypatch.setattr(FreeCores, "measure", lambda _: next(measured))
    monkeypatch.setattr(library, "set_n_threads", note)

    events = run(load(path, max_sequences=2, max_context_tokens=1024, threads=2), PROMPT)

    assert output(events) == expected
    assert told[:4] == [1, 2, 1, 2]


def test_a_single_thread_is_left_alone(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    monkeypatch.setattr(FreeCores, "measure", lambda _: pytest.fail("nothing to choose"))

    Threads(library, context=0, most=1).note_pass()
