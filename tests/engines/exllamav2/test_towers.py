"""The library's own vision towers, against what transformers 5.17 makes of the same folders."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.engine_api.task import Prompt, Segment
from tests.contract.engine.driving import failed, run, started, tokens
from tests.engines.exllamav2 import towers
from tests.engines.exllamav2.loading_models import said, task


class Expected(NamedTuple):
    """transformers' picture features in float32, and its greedy tokens behind the prompt.

    Attributes:
        rows: without what the library adds before and behind.
        begin: of the first one.
        norm: of all of them.
        says: after `look: <picture> what is it?`.
        breaks_every: the library ends a row of patches with a token; 0 for none.
    """

    rows: slice
    begin: tuple[float, float, float]
    norm: float
    says: list[int]
    breaks_every: int = 0


EXPECTED = {
    "Qwen2-VL": Expected(
        slice(1, -1), (0.4079, 0.2761, 1.1031), 20.152,
        [5, 38, 23, 1, 34, 8, 10, 5, 38, 2, 11, 4, 21, 29, 39, 39],
    ),
    "Qwen2.5-VL": Expected(
        slice(1, -1), (-1.0096, 0.6133, 0.8192), 17.601,
        [5, 14, 8, 9, 17, 4, 28, 33, 9, 29, 39, 9, 5, 14, 12, 29],
    ),
    "Pixtral": Expected(
        slice(0, -1), (0.4948, 0.0734, -1.4109), 52.326,
        [1, 24, 8, 12, 8, 16, 9, 17, 8, 32, 22, 6, 17, 21, 19, 32], breaks_every=9,
    ),
    "Mistral 3": Expected(
        slice(0, -1), (0.2102, 0.2077, 0.0064), 15.512,
        [7, 39, 5, 14, 8, 16, 7, 39, 9, 31, 29, 39, 5, 23, 5, 38], breaks_every=5,
    ),
    "Gemma 3": Expected(
        slice(1, -1), (0.9673, -0.1982, 0.4262), 13.166, [89] * 16,
    ),
}  # fmt: skip


def picture(*, step: int = 3) -> bytes:
    rows, columns = np.indices((84, 112))
    pixels = np.stack((2 * columns, step * rows, rows + columns), -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(params=EXPECTED)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def model(loaded: Any, name: str, tmp_path: Path) -> Any:
    return loaded(towers.build(tmp_path / "model", towers.KINDS[name]))


def prompt(model: Any, name: str) -> list[int]:
    kind = towers.KINDS[name]
    marker = [Segment(text, control=True) for text in kind.markers[: kind.marker]]
    ids: list[int] = model.tokenize(Prompt((Segment("look: "), *marker, Segment(" what is it?"))))
    return ids


def test_a_tower_sees_what_transformers_sees(model: Any, name: str) -> None:
    expected = EXPECTED[name]

    made = model._factory._vision._embedding(picture()).embeddings.float()[expected.rows]

    every = expected.breaks_every
    if every:  # a row of patches ends with a token of its own
        made = made[[n for n in range(len(made)) if (n + 1) % every]]
    assert made[0, :3].tolist() == pytest.approx(expected.begin, abs=0.01)
    assert float(made.norm()) == pytest.approx(expected.norm, rel=2e-3)


def test_the_model_says_what_transformers_says(model: Any, name: str) -> None:
    asked = task(prompt(model, name), images=(picture(),), tokens=16)

    events = run(model, asked)

    assert model.info.supports_images
    assert tokens(events) == EXPECTED[name].says
    alone = len(prompt(model, name)) - towers.KINDS[name].marker
    embedding = model._factory._vision._embedding(picture())
    assert started(events).prompt_tokens == alone + embedding.length


def test_other_pictures_say_other_things(loaded: Any, tmp_path: Path) -> None:
    model = loaded(towers.build(tmp_path / "model", towers.KINDS["Qwen2-VL"]))
    ids = prompt(model, "Qwen2-VL")
    tasks = [task(ids, images=(picture(step=step),), tokens=16) for step in (3, 1, 3)]

    one, other, again = said(model, *tasks)

    assert one == again != other


@pytest.mark.parametrize(
    ("size", "told"),
    [((9000, 20), "9000 by 20 pixels cannot be used: "), ((10_000, 6_000), "50000000 are read")],
)
def test_a_picture_of_an_impossible_size_costs_its_request_alone(
    loaded: Any, tmp_path: Path, size: tuple[int, int], told: str
) -> None:
    model = loaded(towers.build(tmp_path / "model", towers.KINDS["Qwen2-VL"]))
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")

    event = failed(run(model, task(prompt(model, "Qwen2-VL"), images=(file.getvalue(),))))

    assert (event.reason, event.field) == ("BAD_REQUEST", "images")
    assert told in event.message


@pytest.mark.parametrize(
    ("words", "reason"),
    [("CUDA out of memory. Tried to allocate", "OUT_OF_MEMORY"), ("CUDA error: launch", None)],
)
def test_a_fault_of_the_tower_is_told_by_how_far_it_goes(
    loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, reason: str | None
) -> None:
    model = loaded(towers.build(tmp_path / "model", towers.KINDS["Qwen2-VL"]))

    def fail(**_: Any) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(model._parts.tower, "get_image_embeddings", fail)
    seen = task(prompt(model, "Qwen2-VL"), images=(picture(),))

    if reason is None:
        with pytest.raises(EnginePoisoned, match="launch"):
            run(model, seen)
    else:
        assert failed(run(model, seen)).reason == reason


def test_a_folder_that_transformers_5_has_saved_is_read(loaded: Any, tmp_path: Path) -> None:
    """It calls the parts of Gemma 3's tower otherwise, and has one file for all processors."""
    from safetensors.numpy import load_file, save_file

    place = towers.build(tmp_path / "model", towers.KINDS["Gemma 3"])
    tensors = load_file(place / "model.safetensors")
    renamed = {name.replace("vision_model.", ""): values for name, values in tensors.items()}
    save_file(renamed, place / "model.safetensors")
    old = place / "preprocessor_config.json"
    (place / "processor_config.json").write_text(f'{{"image_processor": {old.read_text()}}}')
    old.unlink()
    model = loaded(place)

    asked = task(prompt(model, "Gemma 3"), images=(picture(),), tokens=16)

    assert said(model, asked) == [EXPECTED["Gemma 3"].says]
