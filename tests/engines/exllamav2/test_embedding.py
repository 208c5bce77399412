"""Vectors of a generator's weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.backplane.errors import FleetError
from tests.contract.engine.driving import failed, run
from tests.engines.exllamav2 import folders
from tests.engines.exllamav2.loading_models import task


def test_vectors_are_normalised_and_differ(loaded: Any) -> None:
    model = loaded(embedding=True)

    one, two, again = model.embed([[5, 6, 7], [7, 6, 5], [5, 6, 7]])

    assert model.info.embedding_size == len(one) == 64
    assert abs(sum(value * value for value in one) - 1) < 1e-3
    assert one == again
    assert one != two
    assert model.stats().steps == 3


def test_pooling_is_the_models_own(loaded: Any, tmp_path: Path) -> None:
    place = folders.build_random(tmp_path / "pooled")
    (place / "1_Pooling").mkdir()
    config = place / "1_Pooling" / "config.json"
    vectors = {}
    for mode in ("mean_tokens", "cls_token", "lasttoken"):
        config.write_text(json.dumps({f"pooling_mode_{mode}": True}))
        vectors[mode] = loaded(place, embedding=True).embed([[9, 10, 11, 12]])[0]

    assert len({tuple(vector) for vector in vectors.values()}) == 3


def test_an_embedding_model_refuses_what_it_does_not_do(loaded: Any) -> None:
    model = loaded(embedding=True, max_context_tokens=512)

    assert failed(run(model, task("x"))).reason == "WRONG_MODALITY"
    with pytest.raises(FleetError, match="empty"):
        model.embed([[]])
    with pytest.raises(FleetError, match="512"):
        model.embed([[5] * 513])


def test_a_generator_makes_no_vectors(loaded: Any) -> None:
    with pytest.raises(FleetError, match="no embeddings"):
        loaded().embed([[1]])
