"""Pictures in prompts: the library's own embeddings in its own generator, without a tower.

The tower is a double that answers with the rows of known tokens, so that a prompt with a picture
must go on as the prompt with those tokens does.
"""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from services.neuron.engine_api.task import Prompt, Segment
from services.neuron.engines import create_engine
from services.neuron.engines.exllamav2 import assembling
from services.neuron.engines.exllamav2.batch.loop import Loop
from tests.contract.engine.driving import failed, run, started, tokens
from tests.engines.exllamav2 import folders
from tests.engines.exllamav2.loading_models import GREEDY, load, task

MARKER = "[IMG]"
SEEN = [40, 41, 42, 43]


class Tower:
    """Shows every picture as the same four tokens."""

    def __init__(self) -> None:
        self.calls = 0

    def get_image_embeddings(self, *, model: Any, tokenizer: Any, image: Image.Image) -> Any:
        import torch
        from exllamav2.generator import ExLlamaV2MMEmbedding

        assert image.mode == "RGB"
        self.calls += 1
        rows = model.modules[0].forward(torch.tensor([SEEN]))[0].clone()
        return ExLlamaV2MMEmbedding(model=model, embeddings=rows)

    def unload(self) -> None: ...


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder: Path = tmp_path_factory.mktemp("vision") / "random"
    loaded = load(create_engine("exllamav2"), folders.build_random(folder, markers=[MARKER]))
    loaded._parts = dataclasses.replace(loaded._parts, tower=Tower())
    info = msgspec.structs.replace(loaded.info, supports_images=True)
    loaded._factory = assembling._stream_factory(loaded._parts, loaded._tokeniser, info)
    yield loaded
    loaded.close()


def picture(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def prompt(model: Loop) -> list[int]:
    parts = (Segment("look: "), Segment(MARKER, control=True), Segment(" what is it?"))
    return model.tokenize(Prompt(parts))


def test_a_picture_takes_its_place_in_the_prompt(model: Loop) -> None:
    ids = prompt(model)
    marker = model.info.control_tokens[MARKER]
    at = ids.index(marker)
    as_tokens = task([*ids[:at], *SEEN, *ids[at + 1 :]])
    as_picture = task(ids, images=(picture(),))

    expected, events = run(model, as_tokens), run(model, as_picture)

    assert tokens(events) == tokens(expected)
    assert started(events).prompt_tokens == len(ids) + len(SEEN) - 1


def test_the_same_picture_is_looked_at_once_and_found_in_the_cache(model: Loop) -> None:
    tower = model._parts.tower
    ids = prompt(model) + [50] * 300
    run(model, task(ids, images=(picture("blue"),)))
    calls = tower.calls

    events = run(model, task(ids, images=(picture("blue"),)))

    assert tower.calls == calls
    assert started(events).cached_tokens >= 256


def test_pictures_are_forgotten_in_time(model: Loop) -> None:
    for shade in range(20):
        run(model, task(prompt(model), images=(picture(f"rgb({shade},0,0)"),), tokens=1))

    assert len(model._factory._vision._kept) == 16  # type: ignore[union-attr]


@pytest.mark.parametrize("images", [(b"no picture",), (picture(), picture())])
def test_what_is_no_picture_or_has_no_place_is_refused(
    model: Loop, images: tuple[bytes, ...]
) -> None:
    event = failed(run(model, task(prompt(model), images=images, sampling=GREEDY)))

    assert (event.reason, event.field) == ("BAD_REQUEST", "images")
