"""The worker as the daemon sees it: a real process, real frames, real models."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.neuron.engine_api.events import Delta, Ended, Failed
from services.neuron.engine_api.frames import (
    HEADER,
    AbandonLoad,
    Beat,
    Cancel,
    Counted,
    CountTokens,
    Credit,
    Embedded,
    EmbedTexts,
    Load,
    LoadAborted,
    LoadAdvanced,
    Stepped,
    StopWorker,
    Submit,
    Unload,
    Unloaded,
)
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Prompt, SamplingParams, Segment, StopParams, Task
from tests.doubles import random_llama, scripted, tiny_bert
from tests.doubles.scripted import Script
from tests.doubles.worker_process import WorkerProcess, text_of

ENDLESS = Script(words=[f" w{i}" for i in range(16)], is_endless=True, name="endless")


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as worker:
        yield worker


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return scripted.build(tmp_path / "said.gguf")


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    return scripted.build(tmp_path / "endless.gguf", ENDLESS)


def plan(path: Path, instance_id: str = "i", **fields: Any) -> LoadPlan:
    fields.setdefault("max_context_tokens", 1024)
    return LoadPlan(instance_id, "llamacpp", str(path), **fields)


def task(task_id: int, text: str = "Hi\n", instance_id: str = "i", **fields: Any) -> Task:
    prompt = Prompt((Segment(text),))
    return Task(task_id, instance_id, prompt, SamplingParams(temperature=0), **fields)


def active(report: Stepped) -> int:
    return report.stats.active


def test_hello_comes_first(worker: WorkerProcess) -> None:
    hello = worker.receive()

    assert getattr(hello, "pid", None) == worker.process.pid
    assert getattr(hello, "facts", {})["xllamacpp"]


def test_a_model_is_loaded_and_talks(worker: WorkerProcess, said: Path) -> None:
    loaded = worker.load(plan(said))

    events = worker.generate(task(1), task(2))

    assert loaded.info.architecture == "llama"
    assert [text_of(events[n]) for n in (1, 2)] == ["Hello from model bravo"] * 2


def test_the_load_tells_its_progress_and_its_warm_up(worker: WorkerProcess, said: Path) -> None:
    worker.send(Load(plan(said)))

    warming = worker.until(LoadAdvanced, lambda report: report.warming)

    assert warming.instance_id == "i"


def test_all_tokens_of_a_step_come_in_one_frame(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless, max_sequences=4))
    worker.send(*[Submit(task(n, stop=StopParams(max_tokens=400))) for n in range(4)])

    full = worker.until(
        Stepped, lambda report: sum(isinstance(e, Delta) for e in report.events) == 4
    )

    assert active(full) == 4


def test_a_cancelled_task_falls_silent(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless, max_sequences=2, max_context_tokens=4096))
    worker.send(Submit(task(1)), Submit(task(2, stop=StopParams(max_tokens=2000))))
    worker.until(Stepped, lambda report: active(report) == 2)

    worker.send(Cancel((1,)))
    worker.until(Stepped, lambda report: active(report) == 1)

    after = worker.collect({2})[2]
    assert not any(event.task_id == 1 for event in after)


def test_a_cancelled_waiter_never_runs(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless, max_sequences=1))
    worker.send(Submit(task(1, credit_tokens=0)), Submit(task(2)), Cancel((2,)), Cancel((1,)))

    events = worker.generate(task(3, stop=StopParams(max_tokens=1)))

    assert text_of(events[3]) == " w0"


def test_credit_lets_a_task_go_on(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless))
    worker.send(Submit(task(1, stop=StopParams(max_tokens=4), credit_tokens=1)))
    first = worker.until(Stepped, lambda r: any(isinstance(e, Delta) for e in r.events))

    worker.send(Credit(((1, 10),)))

    rest = worker.collect({1})[1]
    assert text_of([*first.events, *rest]) == " w0 w1 w2 w3"


def test_a_wait_that_is_too_long_ends_though_nothing_moves(
    worker: WorkerProcess, endless: Path
) -> None:
    worker.load(plan(endless, max_sequences=1, queue_timeout_seconds=0.2))
    worker.send(Submit(task(1, credit_tokens=0)), Submit(task(2)))

    events = worker.collect({2})[2]

    last = events[-1]
    assert isinstance(last, Failed)
    assert last.reason == "QUEUE_TIMEOUT"


def test_texts_are_counted(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))

    worker.send(CountTokens(5, "i", Prompt((Segment("four"),))))
    worker.send(CountTokens(6, "gone", Prompt((Segment("four"),))))

    assert len(worker.until(Counted, lambda r: r.call_id == 5).token_ids) == 4
    error = worker.until(Counted, lambda r: r.call_id == 6).error
    assert error is not None
    assert error[0] == "INSTANCE_GONE"


def test_sixteen_megabytes_hold_up_nobody(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))
    endless = "the road goes on " * (1 << 20)
    stop = StopParams(max_tokens=1)
    worker.send(CountTokens(5, "i", Prompt((Segment(endless),))))
    worker.send(Submit(task(1, endless)), Submit(task(2, endless)), Cancel((2,)))
    worker.send(Submit(task(3, stop=stop)))

    happened: list[Any] = []
    while not (happened and isinstance(happened[-1], Counted)):
        report = worker.receive()
        happened += report.events if isinstance(report, Stepped) else [report]

    # All others have ended before the count has.
    failed = next(each for each in happened if isinstance(each, Failed))
    assert (failed.task_id, failed.reason) == (1, "CONTEXT_TOO_LONG")
    assert 1024 < int(failed.facts["prompt_tokens"]) <= len(endless)
    assert [each.task_id for each in happened if isinstance(each, Ended)] == [3]
    assert not any(getattr(each, "task_id", 0) == 2 for each in happened)
    assert len(happened[-1].token_ids) == len(endless)


def test_texts_are_embedded_while_another_model_talks(
    worker: WorkerProcess, endless: Path, tmp_path: Path
) -> None:
    worker.load(plan(endless, "talker", max_context_tokens=4096))
    worker.load(plan(tiny_bert.build(tmp_path / "b.gguf"), "bert", embedding=True))
    texts = tuple(Prompt((Segment("the cat is a pet"),)) for _ in range(300))
    worker.send(Submit(task(1, instance_id="talker")), EmbedTexts(9, "bert", texts))

    deltas = 0
    while not isinstance(report := worker.receive(), Embedded):
        deltas += isinstance(report, Stepped)

    assert report.error is None
    assert (len(report.vectors), report.prompt_tokens) == (300, 300 * 7)
    assert deltas > 1


def test_too_long_texts_are_refused_or_cut(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.load(plan(tiny_bert.build(tmp_path / "b.gguf"), embedding=True))
    long = (Prompt((Segment("cat " * 200),)),)

    worker.send(EmbedTexts(1, "i", long), EmbedTexts(2, "i", long, truncate=True))

    refused = worker.until(Embedded, lambda r: r.call_id == 1)
    assert refused.error is not None
    assert refused.error[0] == "CONTEXT_TOO_LONG"
    cut = worker.until(Embedded, lambda r: r.call_id == 2)
    assert cut.error is None
    assert cut.prompt_tokens == 64


def test_a_generator_asked_to_embed_says_no(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))

    worker.send(EmbedTexts(1, "i", (Prompt((Segment("x"),)),)))

    error = worker.until(Embedded).error
    assert error is not None
    assert error[0] == "WRONG_MODALITY"


def test_two_models_talk_at_once(worker: WorkerProcess, said: Path, tmp_path: Path) -> None:
    other = scripted.build(tmp_path / "other.gguf", Script(words=("It", " is", " other")))
    worker.load(plan(said, "one"))
    worker.load(plan(other, "two"))

    events = worker.generate(task(1, instance_id="one"), task(2, instance_id="two"))

    assert text_of(events[1]) == "Hello from model bravo"
    assert text_of(events[2]) == "It is other"


def test_a_load_goes_on_beside_a_model_that_talks(
    worker: WorkerProcess, endless: Path, tmp_path: Path
) -> None:
    big = random_llama.build(tmp_path / "big.gguf", context=65_536)
    worker.load(plan(endless, "talker", max_context_tokens=4096))
    worker.send(Submit(task(1, instance_id="talker")))
    worker.send(Load(plan(big, "late", max_context_tokens=65_536, max_sequences=8)))

    kinds: list[str] = []
    while "Loaded" not in kinds:
        kinds.append(type(worker.receive()).__name__)

    assert "Stepped" in kinds[kinds.index("LoadAdvanced") :]


def test_an_unload_frees_memory_and_ends_its_tasks(worker: WorkerProcess, tmp_path: Path) -> None:
    big = scripted.build(
        tmp_path / "big.gguf", Script(words=[" a", " b"], is_endless=True, context=65_536)
    )
    worker.load(plan(big, max_context_tokens=65_536, max_sequences=4))
    worker.send(Submit(task(1)))
    worker.until(Stepped)

    worker.send(Unload("i"))

    failed = worker.until(Stepped, lambda r: any(isinstance(e, Failed) for e in r.events))
    assert [getattr(e, "reason", "") for e in failed.events] == ["INSTANCE_GONE"]
    assert worker.until(Unloaded).freed_bytes > 50 << 20


def test_a_task_for_a_model_that_is_gone_fails(worker: WorkerProcess) -> None:
    (event,) = worker.generate(task(1, instance_id="gone"))[1]

    assert isinstance(event, Failed)
    assert event.reason == "INSTANCE_GONE"


def test_an_unload_of_nothing_is_answered(worker: WorkerProcess) -> None:
    worker.send(Unload("gone"))

    assert worker.until(Unloaded).freed_bytes == 0


def test_a_prompt_that_is_refused_fails_its_task_alone(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))
    bad = Task(1, "i", Prompt(token_ids=(999_999,)))

    events = worker.generate(bad, task(2), task(3, "x" * 2000))

    assert getattr(events[1][-1], "reason", "") == "BAD_REQUEST"
    assert text_of(events[2]) == "Hello from model bravo"
    assert getattr(events[3][-1], "facts", {})["prompt_tokens"] == "2000"


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

    assert ended.reason == "LOAD_FAILED"
    assert "first token" in ended.message


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


def test_it_beats_while_idle_and_while_busy(worker: WorkerProcess, tmp_path: Path) -> None:
    long = Script(words=[" a", " b"], is_endless=True, context=65_536)
    worker.load(plan(scripted.build(tmp_path / "long.gguf", long), max_context_tokens=65_536))
    idle = worker.until(Beat, lambda beat: not beat.busy_with)
    worker.send(Submit(task(1)))

    busy = worker.until(Beat, lambda beat: bool(beat.busy_with))

    worker.send(Cancel((1,)))
    assert idle.resident_bytes > 10 << 20
    assert busy.busy_with == "generating"


def test_stop_ends_it(worker: WorkerProcess) -> None:
    worker.hello()

    worker.send(StopWorker())

    assert worker.process.wait(10) == 0


def test_it_ends_when_the_daemon_closes_the_socket(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless))
    worker.send(Submit(task(1)))

    worker.close()

    assert worker.process.wait(10) == 0


def test_a_frame_that_is_no_frame_ends_it_loudly(worker: WorkerProcess) -> None:
    worker.hello()

    worker.send_raw(HEADER.pack(3) + b"\xc1\xc1\xc1")

    assert worker.last_words().startswith("worker: The daemon sent what is no frame")
    assert worker.process.returncode == 76


def test_its_threads_are_shown_on_demand(worker: WorkerProcess) -> None:
    worker.until(Beat)

    worker.process.send_signal(signal.SIGUSR1)
    worker.until(Beat)
    worker.send(StopWorker())

    assert "loop.py" in worker.last_words()


def test_a_killed_worker_is_an_end_of_stream(worker: WorkerProcess, endless: Path) -> None:
    worker.load(plan(endless, max_context_tokens=4096))
    worker.send(Submit(task(1)))
    worker.until(Stepped)

    worker.kill()

    with pytest.raises(EOFError):
        worker.until(Unloaded)
    assert worker.process.wait(10) == -signal.SIGKILL


def test_it_dies_with_its_parent() -> None:
    ours, theirs = socket.socketpair()
    parent = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'services.neuron.worker',"
        f" '--engine', 'llamacpp', '--fd', '{theirs.fileno()}']\n"
        f"child = subprocess.Popen(command, pass_fds=[{theirs.fileno()}])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], pass_fds=[theirs.fileno()], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    theirs.close()
    ours.settimeout(30)
    ours.recv(1)  # it is up

    process.kill()
    process.wait()
    process.stdout.close()

    # The socket stays open on our side: only the kernel's signal can end it.
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}/stat").exists() and not _is_zombie(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ours.close()


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return True


def test_a_missing_engine_is_told_in_one_line() -> None:
    with WorkerProcess("nope") as worker:
        words = worker.last_words()

    assert worker.process.returncode == 69
    assert words.startswith("worker: There is no engine 'nope'")
    assert "Traceback" not in words


def test_a_library_that_aborts_leaves_its_words(tmp_path: Path) -> None:
    # A duplicate token is one of the few faults of a file that llama.cpp does not survive.
    path = tmp_path / "twice.gguf"
    good = scripted.build(tmp_path / "good.gguf", Script(words=("Hello", "World")))
    path.write_bytes(good.read_bytes().replace(b"World", b"Hello"))
    with WorkerProcess() as worker:
        worker.send(Load(plan(path)))
        with pytest.raises(EOFError):
            worker.until(LoadAborted)
        words = worker.last_words()

    assert worker.process.returncode == -signal.SIGABRT
    assert "GGML_ASSERT" in words


def test_usage_is_told_at_the_end(worker: WorkerProcess, said: Path) -> None:
    worker.load(plan(said))

    ended = worker.generate(task(1))[1][-1]

    assert isinstance(ended, Ended)
    assert ended.completion_tokens == 4
    assert ended.decode_seconds >= 0
