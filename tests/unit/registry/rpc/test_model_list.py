from __future__ import annotations

from cortex.v1 import model_pb2
from services.registry.catalogue.catalogue import Catalogue
from services.registry.catalogue.profile import LoadTerms, Price, Profile
from services.registry.fleet.members import Fleet
from services.registry.fleet.records import (
    Device,
    Instance,
    InstanceState,
    NeuronIdentity,
    NeuronReport,
    StoredModel,
)
from services.registry.fleet.state import FleetState
from services.registry.rpc.model_list import ModelDirectory
from services.registry.scheduler.cache import SchedulerCache

GPU = (Device("gpu", "cuda", 24, 24),)


def listed(*reports: NeuronReport, catalogue: tuple[Profile, ...] = ()):
    """The view of a fleet whose neurons made these reports."""
    fleet_state = FleetState(
        lambda: 0.0, catalogue=Catalogue({p.model: p for p in catalogue}, {}, 1)
    )
    fleet: Fleet = fleet_state.fleet
    for index, report in enumerate(reports):
        name = f"n{index}"
        fleet.report(name, fleet.attach(NeuronIdentity(name, "i", f"{name}:1")), report, 0.0, None)
    view = ModelDirectory(fleet_state, {}, 1234).view(SchedulerCache(fleet_state), 1)
    return {m.model: m for m in view.models}


def loaded(model: str, **facts: object) -> Instance:
    return Instance(f"{model}-1", model, InstanceState.READY, {"gpu": 5}, **facts)  # type: ignore[arg-type]


def test_capabilities_are_united_without_doubles_and_nobodys_silence_hides_anothers():
    models = listed(
        NeuronReport(1, GPU, (loaded("m", capabilities=("chat", "tools")),)),
        NeuronReport(1, GPU, (loaded("m", capabilities=()),)),
        NeuronReport(
            1, GPU, stored=(StoredModel("m", "path:/m", 5, capabilities=("chat", "reasoning")),)
        ),
    )

    assert list(models["m"].capabilities) == [
        model_pb2.CAPABILITY_CHAT,
        model_pb2.CAPABILITY_REASONING,
        model_pb2.CAPABILITY_TOOLS,
    ]


def test_what_was_found_out_wins_over_the_catalogue_and_the_catalogue_over_nothing():
    configured = Profile("m", capabilities=("vision",))
    cold = Profile("cold", capabilities=("vision",))

    models = listed(
        NeuronReport(1, GPU, (loaded("m", capabilities=("chat",)),)), catalogue=(configured, cold)
    )

    assert list(models["m"].capabilities) == [model_pb2.CAPABILITY_CHAT]
    assert list(models["cold"].capabilities) == [model_pb2.CAPABILITY_VISION]


def test_the_tightest_context_of_the_loaded_instances_counts():
    configured = Profile("m", LoadTerms(max_context_tokens=9000))

    assert listed(catalogue=(configured,))["m"].max_context_tokens == 9000
    models = listed(
        NeuronReport(1, GPU, (loaded("m", max_context_tokens=4096),)),
        NeuronReport(1, GPU, (loaded("m", max_context_tokens=2048),)),
        catalogue=(configured,),
    )
    assert models["m"].max_context_tokens == 2048


def test_a_price_of_zero_is_free_and_an_absent_one_unknown():
    priced = Profile("priced", price=Price(input=0.0, output=0.6))

    models = listed(catalogue=(priced, Profile("silent")))

    price = models["priced"].price
    assert price.HasField("input")
    assert (price.input, price.output) == (0.0, 0.6)
    assert not price.HasField("cache_read")
    assert not models["silent"].HasField("price")


def test_a_recovering_or_loading_model_is_still_listed():
    coming = Instance("x", "coming", InstanceState.LOADING)
    back = Instance("y", "back", InstanceState.RECOVERING)

    assert sorted(listed(NeuronReport(1, GPU, (coming, back)))) == ["back", "coming"]


def test_what_no_neuron_lists_any_more_is_gone():
    fleet_state = FleetState(lambda: 0.0)
    fleet = fleet_state.fleet
    epoch = fleet.attach(NeuronIdentity("n", "i", "n:1"))
    fleet.report("n", epoch, NeuronReport(1, GPU, (loaded("m"),)), 0.0, None)
    model_list = ModelDirectory(fleet_state, {}, 0)
    assert [m.model for m in model_list.view(SchedulerCache(fleet_state), 1).models] == ["m"]

    fleet.report("n", epoch, NeuronReport(2, GPU), 0.0, None)

    assert list(model_list.view(SchedulerCache(fleet_state), 1).models) == []


def test_where_a_model_could_run_follows_the_hardware():
    small = NeuronReport(1, (Device("gpu", "cuda", 4, 4),))
    wanted = Profile("m", LoadTerms(source="path:/m"), 1, memory_bytes=10)

    models = listed(NeuronReport(1, GPU), small, catalogue=(wanted,))

    assert list(models["m"].feasible_neurons) == ["n0"]


def test_when_a_model_was_first_known_does_not_change():
    assert listed(catalogue=(Profile("m"),))["m"].created_unix_seconds == 1234


def test_a_model_is_known_by_the_files_of_its_instance_also_when_that_is_gone():
    files = StoredModel("m", "path:/m", 7, quantization="Q4_1", fingerprint="f", modified=1.5)
    fleet_state = FleetState(lambda: 0.0, catalogue=Catalogue({"m": Profile("m")}, {}, 1))
    fleet, model_list = fleet_state.fleet, ModelDirectory(fleet_state, {}, 1234)
    epoch = fleet.attach(NeuronIdentity("n", "i", "n:1"))

    seen = []
    for report in (
        NeuronReport(1, GPU, (loaded("m"),)),
        NeuronReport(2, GPU, (loaded("m", weights=files),)),
        NeuronReport(3, GPU),
    ):
        fleet.report("n", epoch, report, 0.0, None)
        seen.append(model_list.view(SchedulerCache(fleet_state), 1).models[0])

    assert [one.HasField("weights") for one in seen] == [False, True, True]
    assert seen[2].weights.quantization == "Q4_1"
    assert seen[2].weights.bytes == 7
    assert seen[2].weights.modified_at.ToMilliseconds() == 1500
    assert seen[2].weights.source == ""
