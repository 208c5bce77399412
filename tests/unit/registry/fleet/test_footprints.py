from __future__ import annotations

import dataclasses

import pytest

from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.fleet.footprints import Footprint, Footprints
from services.registry.fleet.records import (
    GpuLayers,
    Instance,
    InstanceState,
    LoadProgress,
    StoredModel,
)
from services.registry.placement import load

MODEL = Profile("m", revision=1)
FILES = StoredModel("m", "path:/m", 1000)


def loaded(memory: dict[str, int], *, layers_left: int = 0) -> Instance:
    return Instance("i", "m", InstanceState.READY, memory, layers_left=layers_left)


def test_learned_before_catalogue_before_file_size_before_unknown():
    figures = Footprints()
    assert figures.footprint(MODEL) == Footprint(0, "unknown")
    assert figures.footprint(MODEL, FILES) == Footprint(1200, "file size")
    configured = dataclasses.replace(MODEL, memory_bytes=500)
    assert figures.footprint(configured, FILES).source == "catalogue"

    figures.observe(configured, "one", loaded({"gpu0": 300, "gpu1": 320}), 4.0)

    learned = figures.footprint(configured, FILES)
    assert (learned.total_bytes, learned.source) == (620, "learned")
    assert learned.per_device(2) == 320
    assert learned.per_device(1) == 620


def test_an_edited_model_is_learned_anew():
    figures = Footprints()
    figures.observe(MODEL, "one", loaded({"gpu": 300}), 4.0)

    assert figures.footprint(dataclasses.replace(MODEL, revision=2)).source == "unknown"


def test_a_devices_figure_of_the_catalogue_is_per_device():
    wide = dataclasses.replace(MODEL, devices=2, device_memory_bytes=10)

    assert Footprints().footprint(wide).per_device(2) == 10


def test_load_seconds_are_learned_per_neuron_then_per_model_then_guessed_by_size():
    figures = Footprints()
    assert figures.seconds(MODEL, "one", 3_000_000_000) == pytest.approx(13.0)

    figures.observe(MODEL, "one", loaded({"gpu": 1}), 10.0)
    figures.observe(MODEL, "one", loaded({"gpu": 1}), 20.0)
    figures.observe(MODEL, "two", loaded({"gpu": 1}), 2.0)

    assert figures.seconds(MODEL, "one", 0) == pytest.approx(14.0)
    assert figures.seconds(MODEL, "two", 0) == pytest.approx(2.0)
    assert 2.0 < figures.seconds(MODEL, "three", 0) < 14.0


def test_loads_from_memory_and_from_the_disk_are_learned_apart():
    figures = Footprints()
    assert figures.seconds(MODEL, "one", 3_000_000_000, resident=1.0) == pytest.approx(3.0)
    assert figures.seconds(MODEL, "one", 3_000_000_000, resident=0.5) == pytest.approx(8.0)

    figures.observe(MODEL, "one", loaded({"gpu": 1}), 20.0)
    assert figures.seconds(MODEL, "one", 3_000_000_000, resident=1.0) == pytest.approx(10.0)
    assert figures.seconds(MODEL, "one", 9_000_000_000, resident=1.0) == pytest.approx(3.0)
    figures.observe(MODEL, "one", loaded({"gpu": 1}), 4.0, resident=1.0)

    assert figures.seconds(MODEL, "one", 0) == pytest.approx(20.0)
    assert figures.seconds(MODEL, "one", 0, resident=1.0) == pytest.approx(4.0)
    assert figures.seconds(MODEL, "one", 0, resident=0.5) == pytest.approx(12.0)
    assert figures.seconds(MODEL, "two", 0, resident=1.0) == pytest.approx(4.0)


def test_a_load_from_the_disk_is_expected_to_be_no_faster_than_one_from_memory():
    figures = Footprints()
    records = figures.observe(MODEL, "one", loaded({"gpu": 300}), 9.0, resident=1.0)

    again = Footprints(records)

    assert again.seconds(MODEL, "one", 0) == pytest.approx(9.0)
    assert again.seconds(MODEL, "one", 3_000_000_000) == pytest.approx(13.0)
    assert again.footprint(MODEL).total_bytes == 300


def test_out_of_memory_raises_the_figure_above_what_was_free_but_never_beyond_the_devices():
    figures = Footprints()

    figures.ran_out(MODEL, 1, 100, 1000)
    assert figures.footprint(MODEL).total_bytes == 105
    figures.ran_out(MODEL, 1, 1000, 1000)

    assert figures.footprint(MODEL).total_bytes == 1000


def test_what_was_learned_can_be_kept_and_taken_up_again():
    figures = Footprints()
    records = figures.observe(MODEL, "one", loaded({"gpu": 300}), 4.0)

    again = Footprints(records)

    assert again.footprint(MODEL) == figures.footprint(MODEL)
    assert again.seconds(MODEL, "one", 0) == 4.0


def test_deadlines_grow_with_bytes_and_extend_on_progress_only():
    small, large = load.allowance(0, 0), load.allowance(100 << 30, 0)
    assert large > 10 * small
    assert load.allowance(0, 1000.0) == 3000.0
    one, two = LoadProgress("loading", 1, 9), LoadProgress("loading", 2, 9)

    assert load.extended(50.0, 40.0, one, one, 5.0) == 50.0
    assert load.extended(50.0, 40.0, one, two, 5.0) == 160.0


@pytest.mark.parametrize(
    ("terms", "tokens"),
    [
        (LoadTerms(), 4096),
        (LoadTerms(max_context_tokens=2048), 2048),
        (LoadTerms(max_context_tokens=1 << 20, max_sequences=2), 2 * 8192),
        (LoadTerms(max_sequences=4), 4 * 4096),
        (LoadTerms(max_sequences=4, cache_tokens=8192), 8192),
        (LoadTerms(cache_format="q8"), 4096 * 17 / 32),
    ],
)
def test_the_first_load_of_a_gguf_file_counts_its_cache(terms: LoadTerms, tokens: float):
    files = dataclasses.replace(
        FILES,
        format="gguf",
        max_context_tokens=8192,
        cache_bytes_per_token=1000,
        default_cache_tokens=4096,
    )

    found = Footprints().footprint(dataclasses.replace(MODEL, terms=terms), files)

    assert found == Footprint(1000 + round(tokens * 1000) + (32 << 20), "files and cache")


DIVIDED = dataclasses.replace(
    FILES,
    size_bytes=1000,
    format="gguf",
    max_context_tokens=100,
    cache_bytes_per_token=10,
    default_cache_tokens=100,
    gpu_layers=GpuLayers(most=10, all=10, gpu_bytes=900, host_bytes=150),
)
BUFFERS = 32 << 20


def test_a_gguf_file_counts_what_is_on_gpus_and_what_is_on_the_host():
    found = Footprints().footprint(MODEL, DIVIDED)

    assert found.total_bytes == 900 + 150 + 1000 + BUFFERS
    assert (found.host_bytes, found.gpu_bytes, found.layers) == (150, 1900 + BUFFERS, 10)


def test_layers_that_are_never_on_gpus_have_their_cache_on_the_host():
    few = dataclasses.replace(DIVIDED, gpu_layers=GpuLayers(4, 10, 360, 690))

    assert Footprints().footprint(MODEL, few).host_bytes == 690 + 600


def test_a_file_that_no_gpu_takes_is_for_the_host():
    none = dataclasses.replace(DIVIDED, gpu_layers=GpuLayers(0, 10, 0, 1000))

    found = Footprints().footprint(MODEL, none)

    assert found.is_for_host
    assert found.total_bytes == 2000 + BUFFERS


def test_a_whole_load_teaches_what_is_where():
    figures = Footprints()
    figures.observe(MODEL, "one", loaded({"gpu0": 800, "cpu": 90}), 1.0)

    found = figures.footprint(MODEL, DIVIDED)

    assert (found.total_bytes, found.per_device(1), found.host_bytes) == (890, 800, 90)


def test_a_part_on_the_host_for_lack_of_room_teaches_the_size_and_not_the_places():
    figures = Footprints()
    guess = figures.footprint(MODEL, DIVIDED)
    half = guess.total_bytes // 2

    figures.observe(MODEL, "one", loaded({"gpu0": half // 4, "cpu": half}, layers_left=7), 1.0)

    found = figures.footprint(MODEL, DIVIDED)
    assert found.total_bytes == half // 4 + half
    assert found.host_bytes / found.total_bytes == pytest.approx(150 / guess.total_bytes, rel=0.1)
    assert found.layers == 10
