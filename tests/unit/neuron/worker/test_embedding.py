"""Texts that are embedded, as the daemon sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.neuron.engine_api.frames import (
    AbandonCall,
    Embedded,
    EmbedTexts,
    Stepped,
    Submit,
)
from services.neuron.engine_api.task import Prompt, Segment
from tests.doubles import tiny_bert
from tests.doubles.worker_process import WorkerProcess, plan, task


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


def embedder(folder: Path) -> Path:
    return tiny_bert.build(folder / "b.gguf")


def calls_answered(worker: WorkerProcess, last: int) -> list[int]:
    """Ids of the embedding calls in the order of their answers, up to this one."""
    found: list[int] = []
    while last not in found:
        found.append(worker.until(Embedded).call_id)
    return found


_CAT: Any = Prompt((Segment("the cat is a pet"),))


def test_a_small_call_does_not_wait_for_a_large_one(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.load(plan(embedder(tmp_path), embedding=True))

    worker.send(EmbedTexts(1, "i", (_CAT,) * 2000), EmbedTexts(2, "i", (_CAT,)))

    assert calls_answered(worker, 1) == [2, 1]


def test_a_principal_does_not_wait_for_all_calls_of_another(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    worker.load(plan(embedder(tmp_path), embedding=True))
    many = [EmbedTexts(n, "i", (_CAT,) * 400, principal="ann") for n in range(1, 9)]

    worker.send(*many, EmbedTexts(20, "i", (_CAT,) * 400, principal="bob"))

    # one of the other's calls may have begun before this one was there
    assert len(calls_answered(worker, 20)) <= 2


def test_an_abandoned_call_is_dropped(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.load(plan(embedder(tmp_path), embedding=True))
    short, long = (_CAT,) * 2000, (Prompt((Segment("the cat is a pet " * 100),)),) * 100

    worker.send(EmbedTexts(1, "i", short), EmbedTexts(2, "i", long, truncate=True))
    worker.send(AbandonCall(1), AbandonCall(2), AbandonCall(7), EmbedTexts(3, "i", (_CAT,)))

    assert calls_answered(worker, 3) == [3]
    worker.send(EmbedTexts(4, "i", (_CAT,)))
    assert calls_answered(worker, 4) == [4]
