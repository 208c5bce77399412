"""Loads as the daemon sees them: a real process, real frames, real models."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFReader

from services.neuron.engine_api.events import Delta
from services.neuron.engine_api.frames import (
    AbandonLoad,
    Counted,
    CountTokens,
    Credit,
    Load,
    LoadAborted,
    LoadAdvanced,
    Loaded,
    Stepped,
    Submit,
)
from services.neuron.engine_api.task import Prompt, Segment
from tests.doubles import random_llama
from tests.doubles.worker_process import WorkerProcess, plan, task, text_of


def test_a_model_is_loaded_and_talks(worker: WorkerProcess, said: Path) -> None:
    loaded = worker.load(plan(said))

    events = worker.generate(task(1), task(2))

    assert loaded.info.architecture == "llama"
    assert [text_of(events[n]) for n in (1, 2)] == ["Hello from model bravo"] * 2


def test_the_load_tells_its_progress_and_its_warm_up(worker: WorkerProcess, said: Path) -> None:
    worker.send(Load(plan(said)))

    warming = worker.until(LoadAdvanced, lambda report: report.warming)

    assert warming.instance_id == "i"


def test_a_load_goes_on_beside_a_model_that_talks(endless: Path, said: Path) -> None:
    held = said.with_suffix(".held")
    held.touch()
    with WorkerProcess(module="tests.doubles.neuron_gated_worker") as worker:
        worker.load(plan(endless, "talker"))
        worker.send(Submit(task(1, instance_id="talker", credit_tokens=1)))
        worker.send(Load(plan(said, "late")))
        worker.until(LoadAdvanced)

        worker.send(Credit(((1, 4),)))
        beside = worker.until(Stepped, lambda r: any(isinstance(e, Delta) for e in r.events))
        held.unlink()

        assert beside.instance_id == "talker"
        assert worker.until(Loaded).instance_id == "late"


def test_a_bad_file_ends_the_load_and_nothing_else(
    worker: WorkerProcess, said: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(said.read_bytes()[:100_000])
    worker.load(plan(said))

    worker.send(Load(plan(bad, "bad")))
    ended = worker.until(LoadAborted)

    assert (ended.instance_id, ended.reason) == ("bad", "MODEL_FILE_BAD")
    assert text_of(worker.generate(task(1))[1]) == "Hello from model bravo"


def test_a_model_that_cannot_make_one_token_is_never_ready(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    broken = random_llama.build(tmp_path / "inf.gguf", overflows=True)

    worker.send(Load(plan(broken)))
    ended = worker.until(LoadAborted)

    assert ended.reason == "MODEL_FILE_BAD"
    assert "logits are not numbers" in ended.message


def test_a_file_of_which_only_the_head_has_come_is_never_ready(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    """As downloaders leave it that set the length first: zeros are numbers, and say nothing."""
    path = random_llama.build(tmp_path / "zeros.gguf")
    size, head = path.stat().st_size, GGUFReader(path).data_offset
    with path.open("r+b") as file:
        file.truncate(head)
        file.truncate(size)

    worker.send(Load(plan(path)))
    ended = worker.until(LoadAborted)

    assert ended.reason == "MODEL_FILE_BAD"
    assert "logits are alike" in ended.message


def test_an_embedder_that_makes_no_numbers_is_never_ready(
    worker: WorkerProcess, said: Path, tmp_path: Path
) -> None:
    broken = random_llama.build(tmp_path / "inf.gguf", overflows=True)
    worker.load(plan(said))

    worker.send(Load(plan(broken, "vectors", embedding=True)))
    ended = worker.until(LoadAborted)

    assert ended.reason == "MODEL_FILE_BAD"
    assert "logits are not numbers" in ended.message
    assert text_of(worker.generate(task(1))[1]) == "Hello from model bravo"


def test_a_second_load_of_a_name_is_refused(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))

    worker.send(Load(plan(said)))

    assert worker.until(LoadAborted).reason == "LOAD_FAILED"


def test_loads_may_be_abandoned(worker: WorkerProcess, said: Path) -> None:
    first, second = plan(said, "first"), plan(said, "second")

    worker.send(Load(first), Load(second), AbandonLoad("first"), AbandonLoad("second"))

    ended = {worker.until(LoadAborted).instance_id, worker.until(LoadAborted).instance_id}
    assert ended == {"first", "second"}
    assert worker.load(plan(said)).info.architecture == "llama"


def test_abandoning_a_load_that_ended_is_not_answered(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))

    worker.send(AbandonLoad("i"), CountTokens(1, "i", Prompt((Segment("x"),))))

    while not isinstance(report := worker.receive(), Counted):
        assert not isinstance(report, LoadAborted)
