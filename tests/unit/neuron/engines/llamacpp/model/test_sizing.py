from typing import Any

import pytest

from services.neuron.engine_api.model import LoadFailed, LoadPlan
from services.neuron.engines.llamacpp.model.sizing import CacheShape, cache_shape

GIB = 1 << 30


def shape(*, free_bytes: int = 8 * GIB, trained: int = 8192, **plan: Any) -> CacheShape:
    return cache_shape(
        LoadPlan("i", "llamacpp", "x.gguf", **plan),
        trained_tokens=trained,
        values_per_token=1000,
        free_bytes=free_bytes,
    )


def test_the_models_own_context_is_the_default() -> None:
    assert shape() == CacheShape(4, 8192, 1)


def test_a_plan_is_followed() -> None:
    ours = shape(max_context_tokens=2048, max_sequences=16, cache_format="q8")

    assert ours == CacheShape(16, 2048, 8)
    assert ours.total_tokens == 16 * 2048


def test_no_context_is_longer_than_the_model_was_trained_for() -> None:
    assert shape(max_context_tokens=100_000).context_tokens == 8192


def test_the_cache_bounds_the_number_of_sequences() -> None:
    assert shape(max_context_tokens=2048, max_sequences=8, cache_tokens=5000).sequences == 2


def test_a_cache_smaller_than_one_context_shortens_it() -> None:
    assert shape(cache_tokens=1024) == CacheShape(1, 1024, 1)


def test_an_open_number_of_sequences_gives_way_to_memory() -> None:
    one = 8192 * 1000 * 2

    assert shape(free_bytes=2 * one).sequences == 2


def test_a_fixed_number_of_sequences_does_not() -> None:
    one = 8192 * 1000 * 2

    with pytest.raises(LoadFailed, match=r"takes 62 MiB, and 31 MiB are free") as caught:
        shape(free_bytes=2 * one, max_sequences=4)

    assert caught.value.reason == "OUT_OF_MEMORY"


def test_an_unknown_cache_format_is_refused() -> None:
    with pytest.raises(LoadFailed, match="'q6'") as caught:
        shape(cache_format="q6")

    assert caught.value.reason == "LOAD_FAILED"


def test_texts_embedded_together_divide_the_batch_evenly() -> None:
    assert shape(embedding=True, trained=512, max_sequences=3).sequences == 2
    assert shape(embedding=True, trained=512).sequences == 16
