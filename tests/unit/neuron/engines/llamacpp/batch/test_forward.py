"""What becomes of the streams of a pass for which llama.cpp returns something else than 0.

The library is real; only the code that it returns is a stand-in's, with what it leaves in the cache.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.events import Delta, Ended, Event, Failed
from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task
from services.neuron.engines.llamacpp.batch.narrowing import MOST_GIVEN_UP
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.structs import Batch
from tests.doubles import random_hybrid, random_llama
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel

NO_SLOT, INVALID, NO_MEMORY = 1, -1, -2
KINDS = [
    random_llama.build,
    random_hybrid.build_hybrid,
    random_hybrid.build_recurrent,
    random_hybrid.build_windowed,
]
GOOD = [3 + (i * 37) % 256 for i in range(200)]
BAD = [3 + (i * 41 + 5) % 256 for i in range(150)]


@pytest.fixture(params=KINDS, ids=["llama", "hybrid", "recurrent", "windowed"])
def fresh(request: pytest.FixtureRequest, load: LoadModel, tmp_path: Path) -> Callable[[], Any]:
    """Loads the same weights once more, with nothing in the cache."""
    path = request.param(tmp_path / "model.gguf")
    return lambda: load(path, max_sequences=3, max_context_tokens=1024, model="bravo")


@dataclasses.dataclass
class Refusing:
    """Stands before `llama_decode`.

    Attributes:
        code: returned for batches that are refused.
        refuses: the sequences and the size of a batch: whether it is.
        runs_first: the batch is in the cache nevertheless, as after a failure in its last part.
        tried: sizes of all batches.
    """

    genuine: Callable[..., int]
    code: int
    refuses: Callable[[set[int], int], bool]
    runs_first: bool = False
    tried: list[int] = dataclasses.field(default_factory=list[int])

    def __call__(self, context: int, batch: Batch) -> int:
        count = batch.n_tokens
        self.tried.append(count)
        if not self.refuses(sequences_of(batch), count):
            return self.genuine(context, batch)
        if self.runs_first:
            self.genuine(context, batch)
        return self.code


def returning(code: int) -> Callable[[int, Batch], int]:
    def decode(_: int, __: Batch) -> int:
        return code

    return decode


def sequences_of(batch: Batch) -> set[int]:
    pointers = (ctypes.c_void_p * batch.n_tokens).from_address(batch.seq_id)
    read = ctypes.c_int32.from_address
    return {read(address).value for address in pointers}


def submit(model: LoadedModel, ids: list[int], task_id: int, most: int = 24) -> None:
    stop = StopParams(max_tokens=most, ignore_eos=True)
    model.submit(Task(task_id, "i", Prompt(), SamplingParams(temperature=0), stop), ids)


def finish(model: LoadedModel, *task_ids: int) -> list[Event]:
    events: list[Event] = []
    while {e.task_id for e in events if isinstance(e, Ended | Failed)} < set(task_ids):
        events += model.step()
    return events


def output(events: list[Event], task_id: int) -> list[int]:
    said = [event for event in events if isinstance(event, Delta) and event.task_id == task_id]
    return [token for delta in said for token in delta.token_ids]


def failures(events: list[Event]) -> list[Failed]:
    return [event for event in events if isinstance(event, Failed)]


@pytest.mark.parametrize("runs_first", [False, True], ids=["untouched", "left in the cache"])
@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (NO_SLOT, "OUT_OF_MEMORY", "llama.cpp found no room in its cache"),
        (INVALID, "ENGINE_FAILED", "llama.cpp does not take these tokens"),
        (NO_MEMORY, "OUT_OF_MEMORY", "llama.cpp got no memory to compute with"),
    ],
)
def test_a_stream_that_is_refused_fails_alone_and_the_others_say_what_they_would_have_said(
    fresh: Callable[[], LoadedModel],
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    reason: str,
    words: str,
    runs_first: bool,
) -> None:
    alone = fresh()
    submit(alone, GOOD, 1)
    expected = output(finish(alone, 1), 1)
    model = fresh()
    submit(model, GOOD, 1)
    events = [event for _ in range(8) for event in model.step()]
    assert 0 < len(output(events, 1)) < 24  # in the middle of its answer
    refusing = Refusing(library.decode, code, lambda who, _: 1 in who, runs_first)
    monkeypatch.setattr(library, "decode", refusing)
    submit(model, BAD, 2)  # gets the second sequence

    events += finish(model, 1, 2)

    assert output(events, 1) == expected
    (failed,) = failures(events)
    assert (failed.task_id, failed.reason) == (2, reason)
    assert failed.message.startswith(words)
    assert "for bravo on the CPU." in failed.message
    assert ("max_context_tokens" in failed.message) == (reason == "OUT_OF_MEMORY")
    monkeypatch.setattr(library, "decode", refusing.genuine)
    submit(model, GOOD, 3)
    assert output(finish(model, 3), 3) == expected
    assert model.stats().active == 0


def test_a_prompt_that_is_refused_is_read_in_smaller_pieces(
    fresh: Callable[[], LoadedModel], library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = fresh()
    submit(alone, GOOD, 1)
    expected = output(finish(alone, 1), 1)
    refusing = Refusing(library.decode, NO_MEMORY, lambda _, count: count > 16, runs_first=True)
    monkeypatch.setattr(library, "decode", refusing)
    model = fresh()
    submit(model, GOOD, 1)

    events = finish(model, 1)

    assert not failures(events)
    assert output(events, 1) == expected
    # One try finds the size, and it is kept.
    assert [count for count in refusing.tried if count > 16] == [64, 64, 32]


def test_streams_that_are_refused_together_go_on_apart(
    fresh: Callable[[], LoadedModel], library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list[list[int]]()
    for prompt in (GOOD, BAD):
        alone = fresh()
        submit(alone, prompt, 1)
        expected.append(output(finish(alone, 1), 1))
    refusing = Refusing(library.decode, NO_MEMORY, lambda who, _: len(who) > 1, runs_first=True)
    monkeypatch.setattr(library, "decode", refusing)
    model = fresh()
    submit(model, GOOD, 1)
    submit(model, BAD, 2)

    events = finish(model, 1, 2)

    assert not failures(events)
    assert [output(events, 1), output(events, 2)] == expected


@pytest.mark.parametrize("code", [-3, -4, 3])
def test_a_code_that_promises_nothing_of_the_context_poisons_the_engine(
    load: LoadModel, tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    model = load(random_llama.build(tmp_path / "r.gguf"), max_sequences=2)
    monkeypatch.setattr(library, "decode", returning(code))
    submit(model, GOOD, 1)

    with pytest.raises(EnginePoisoned, match=str(code)):
        model.step()


def test_a_process_that_refuses_everybody_is_poisoned(
    load: LoadModel, tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(random_llama.build(tmp_path / "r.gguf"), max_sequences=2)
    monkeypatch.setattr(library, "decode", returning(NO_MEMORY))
    for task_id in range(1, MOST_GIVEN_UP):
        submit(model, GOOD, task_id)
        assert failures(finish(model, task_id))
    submit(model, GOOD, MOST_GIVEN_UP)

    with pytest.raises(EnginePoisoned, match="no memory"):
        finish(model, MOST_GIVEN_UP)


def test_tokens_that_llama_cpp_itself_does_not_take_end_their_stream_alone(
    fresh: Callable[[], LoadedModel],
) -> None:
    alone = fresh()
    submit(alone, GOOD, 1)
    expected = output(finish(alone, 1), 1)
    model = fresh()
    submit(model, GOOD, 1)
    events = [event for _ in range(6) for event in model.step()]
    submit(model, [*BAD[:20], 1 << 20, *BAD[20:]], 2)

    events += finish(model, 1, 2)

    (failed,) = failures(events)
    assert (failed.task_id, failed.reason) == (2, "ENGINE_FAILED")
    assert "invalid token" in failed.message
    assert output(events, 1) == expected
