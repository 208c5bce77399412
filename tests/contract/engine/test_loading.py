"""How a load goes on, and how it ends badly."""

from pathlib import Path

import pytest

from services.neuron.engine_api.model import LoadFailed, LoadPlan
from tests.contract.engine.driving import Driver, run, text
from tests.contract.engine.subjects import Subject
from tests.doubles.scripted import Script


def plan(driver: Driver, path: Path) -> LoadPlan:
    return driver.plan(path, max_context_tokens=512)


def test_a_missing_model_is_named(driver: Driver, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="nowhere") as caught:
        driver.finish(driver.engine.load(plan(driver, tmp_path / "nowhere")))

    assert caught.value.reason == "MODEL_FILE_BAD"


def test_an_abandoned_load_leaves_room_for_the_next(
    driver: Driver, subject: Subject, tmp_path: Path
) -> None:
    path = subject.build(tmp_path, Script())
    for _ in range(3):
        steps = driver.engine.load(plan(driver, path))
        try:
            next(steps)
        except StopIteration as done:  # a small model may be loaded before the first step
            done.value.close()
        steps.close()

    assert text(run(driver.load(), driver.task())) == "Hello from model bravo"


def test_a_model_can_be_loaded_again_and_again(
    driver: Driver, subject: Subject, tmp_path: Path
) -> None:
    path = subject.build(tmp_path, Script())

    for _ in range(3):
        model = driver.finish(driver.engine.load(plan(driver, path)))
        assert text(run(model, driver.task())) == "Hello from model bravo"
        model.close()


def test_a_longer_context_than_the_models_own_is_cut(driver: Driver) -> None:
    model = driver.load(Script(context=512), max_context_tokens=4096)

    assert model.info.max_context_tokens == 512


def test_advice_on_sampling_comes_from_the_model(driver: Driver) -> None:
    script = Script(sampling={"temp": 0.25, "top_k": 7, "top_p": 0.5})

    sampling = driver.load(script).info.default_sampling

    assert sampling is not None
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.25, 7, 0.5)


def test_a_model_without_advice_gives_none(driver: Driver) -> None:
    assert driver.load().info.default_sampling is None
