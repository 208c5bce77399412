from __future__ import annotations

import dataclasses

import pytest

from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.fleet.footprints import Footprint, Footprints
from services.registry.fleet.records import LoadProgress, StoredModel
from services.registry.placement import load

MODEL = Profile("m", revision=1)
FILES = StoredModel("m", "path:/m", 1000)


def test_learned_before_catalogue_before_file_size_before_unknown():
    figures = Footprints()
    assert figures.footprint(MODEL) == Footprint(0, "unknown")
    assert figures.footprint(MODEL, FILES) == Footprint(1200, "file size")
    configured = dataclasses.replace(MODEL, memory_bytes=500)
    assert figures.footprint(configured, FILES).source == "catalogue"

    figures.observe(configured, "one", {"gpu0": 300, "gpu1": 320}, 4.0)

    learned = figures.footprint(configured, FILES)
    assert (learned.total_bytes, learned.source) == (620, "learned")
    assert learned.per_device(2) == 320
    assert learned.per_device(1) == 620


def test_an_edited_model_is_learned_anew():
    figures = Footprints()
    figures.observe(MODEL, "one", {"gpu": 300}, 4.0)

    assert figures.footprint(dataclasses.replace(MODEL, revision=2)).source == "unknown"


def test_a_devices_figure_of_the_catalogue_is_per_device():
    wide = dataclasses.replace(MODEL, devices=2, device_memory_bytes=10)

    assert Footprints().footprint(wide).per_device(2) == 10


def test_load_seconds_are_learned_per_neuron_then_per_model_then_guessed_by_size():
    figures = Footprints()
    assert figures.seconds(MODEL, "one", 3_000_000_000) == pytest.approx(13.0)

    figures.observe(MODEL, "one", {"gpu": 1}, 10.0)
    figures.observe(MODEL, "one", {"gpu": 1}, 20.0)
    figures.observe(MODEL, "two", {"gpu": 1}, 2.0)

    assert figures.seconds(MODEL, "one", 0) == pytest.approx(14.0)
    assert figures.seconds(MODEL, "two", 0) == pytest.approx(2.0)
    assert 2.0 < figures.seconds(MODEL, "three", 0) < 14.0


def test_out_of_memory_raises_the_figure_above_what_was_free_but_never_beyond_the_devices():
    figures = Footprints()

    figures.ran_out(MODEL, 1, 100, 1000)
    assert figures.footprint(MODEL).total_bytes == 105
    figures.ran_out(MODEL, 1, 1000, 1000)

    assert figures.footprint(MODEL).total_bytes == 1000


def test_what_was_learned_can_be_kept_and_taken_up_again():
    figures = Footprints()
    records = figures.observe(MODEL, "one", {"gpu": 300}, 4.0)

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
