"""A file is one model, whatever names it has."""

from __future__ import annotations

from services.registry.catalogue.catalogue import Catalogue
from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.fleet.records import (
    Instance,
    InstanceState,
    NeuronIdentity,
    NeuronReport,
    StoredModel,
)
from services.registry.fleet.state import FleetState

ORIGIN = "hf:owner/name@main"
FETCHED = "/store/hf/owner/name@main"


class Disks:
    """A fleet of which only the disks matter."""

    def __init__(self, *entries: Profile) -> None:
        profiles = {entry.model: entry for entry in entries}
        self.state = FleetState(lambda: 0.0, catalogue=Catalogue(profiles, {}, 1))
        self._sequence = 0
        self._epochs: dict[str, int] = {}

    def hold(self, neuron: str, *stored: StoredModel, loaded: str = "") -> None:
        fleet = self.state.fleet
        if neuron not in self._epochs:
            identity = NeuronIdentity(neuron, "i", f"{neuron}:1")
            self._epochs[neuron] = fleet.attach(identity)
        self._sequence += 1
        instances = (Instance("x", loaded, InstanceState.READY),) if loaded else ()
        report = NeuronReport(self._sequence, instances=instances, stored=stored)
        fleet.report(neuron, self._epochs[neuron], report, 0.0, None)

    def models(self) -> dict[str, list[str]]:
        """What clients may ask for: own names with the other ones."""
        found: dict[str, list[str]] = {}
        for name in self.state.known_models():
            profile = self.state.profile(name)
            assert profile is not None
            assert profile.model == name
            found[name] = self.state.aliases(profile)
        return found


def stored(names: str, source: str, size: int = 4, *, origin: str = "") -> list[StoredModel]:
    path = f"path:{source}"
    return [StoredModel(name, path, size, origin=origin) for name in names.split()]


def test_names_of_one_file_are_one_model_by_the_longest():
    disks = Disks()
    disks.hold("n", *stored("m m:Q8_0", "/m-Q8_0", 8), *stored("m:Q4_K_M", "/m-Q4_K_M"))

    assert {"m:Q4_K_M": [], "m:Q8_0": ["m"]} == disks.models()
    for name in ("m", "m:Q8_0"):
        profile = disks.state.profile(name)
        assert profile is not None
        assert "m:Q8_0" == profile.model


def test_files_that_only_look_alike_are_different_models():
    disks = Disks()
    disks.hold("n", *stored("m", "/a"), *stored("m:Q4_K_M", "/b"))

    assert {"m": [], "m:Q4_K_M": []} == disks.models()


def test_a_name_that_means_one_thing_here_and_another_there_is_the_largest():
    disks = Disks()
    small, large = stored("m:Q4_K_M", "/4"), stored("m:Q8_0", "/8", 8)
    disks.hold("large", *small, *large, *stored("m", "/8", 8))
    disks.hold("small", *small, *large, *stored("m", "/4"))

    assert {"m:Q4_K_M": [], "m:Q8_0": ["m"]} == disks.models()

    disks.hold("large")
    assert {"m:Q4_K_M": ["m"], "m:Q8_0": []} == disks.models()


def test_a_name_that_is_the_only_one_of_some_file_is_a_model_of_its_own():
    disks = Disks()
    disks.hold("a", *stored("m m:Q4_K_M", "/m-Q4_K_M"))
    disks.hold("b", *stored("m", "/m"))

    assert {"m": [], "m:Q4_K_M": []} == disks.models()

    assert disks.state.fleet.remove("b")
    assert {"m:Q4_K_M": ["m"]} == disks.models()


def test_a_name_that_something_is_loaded_by_is_a_model_as_long_as_it_is():
    disks = Disks()
    files = stored("m m:Q4_K_M", "/m-Q4_K_M")
    disks.hold("n", *files, loaded="m")
    assert {"m": [], "m:Q4_K_M": []} == disks.models()

    disks.hold("n", *files)

    assert {"m:Q4_K_M": ["m"]} == disks.models()


def test_an_entry_that_loads_the_file_as_its_name_would_is_the_model():
    entries = (
        Profile("by-path", LoadTerms(source="path:/a.gguf", max_sequences=8)),
        Profile("m"),
        Profile("tag", LoadTerms(source="hf:owner/name@main", quant="q8_0")),
        Profile("file", LoadTerms(source="hf:owner/name@main/sub/d-*.gguf#sha256=00")),
    )
    disks = Disks(*entries)
    disks.hold(
        "n",
        *stored("a", "/a.gguf"),
        *stored("m m:Q4_K_M", "/m-Q4_K_M.gguf"),
        *stored("c:Q8_0 c", f"{FETCHED}/c-Q8_0.gguf", origin=ORIGIN),
        *stored("c:Q4_0", f"{FETCHED}/c-Q4_0.gguf", origin=ORIGIN),
        *stored("d-Q5_K", f"{FETCHED}/sub/d-Q5_K.gguf", origin=ORIGIN),
    )

    assert {
        "by-path": ["a"],
        "c:Q4_0": [],
        "file": ["d-Q5_K"],
        "m": ["m:Q4_K_M"],
        "tag": ["c", "c:Q8_0"],
    } == disks.models()


def test_an_entry_that_loads_it_otherwise_is_another_model():
    disks = Disks(Profile("long", LoadTerms(source="path:/a", max_context_tokens=9000)))
    disks.hold("n", *stored("a", "/a"))

    assert {"a": [], "long": []} == disks.models()


def test_what_an_entry_means_is_not_guessed_where_several_files_would_do():
    disks = Disks(Profile("any", LoadTerms(source=ORIGIN)))
    one, two = (stored(n, f"{FETCHED}/{n}.gguf", origin=ORIGIN) for n in ("one", "two"))
    disks.hold("n", *one, *two)

    assert {"any": [], "one": [], "two": []} == disks.models()


def test_another_catalogue_means_other_names():
    disks = Disks()
    disks.hold("n", *stored("a", "/a"))
    assert {"a": []} == disks.models()

    entry = Profile("own", LoadTerms(source="path:/a"))
    disks.state.catalogue = Catalogue({"own": entry}, {}, 2)
    assert {"own": ["a"]} == disks.models()

    disks.state.catalogue = Catalogue({"own": entry}, {"a": "own"}, 3)
    assert {"own": []} == disks.models()  # the catalogue's own alias, which its parser fills in


def test_a_pin_by_any_name_is_the_models():
    disks = Disks()
    disks.state.pins["m"] = "n"
    disks.hold("n", *stored("m m:Q4_K_M", "/m-Q4_K_M"))
    profile = disks.state.profile("m:Q4_K_M")
    assert profile is not None

    assert disks.state.is_pinned(profile)
    assert "n" == disks.state.pinned_on(profile)
    assert ["m"] == disks.state.pins_of("m:Q4_K_M")
