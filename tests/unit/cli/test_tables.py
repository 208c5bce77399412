import io

import pytest
from google.protobuf import duration_pb2
from rich.console import Console

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as reg
from services.cli import tables


def show(*what):
    stream = io.StringIO()
    Console(file=stream, width=160).print(*what, sep="\n")
    return stream.getvalue()


def a_neuron(**changes):
    return reg.Neuron(
        identity=neuron.NeuronIdentity(name="beast", address="beast:13131", engines=["llamacpp"]),
        report=neuron.NeuronReport(
            devices=[
                model.Device(
                    device_id="cpu",
                    name="EPYC",
                    memory_total_bytes=8 << 30,
                    memory_free_bytes=1 << 20,
                )
            ],
            instances=[
                model.Instance(
                    spec=model.LoadSpec(model="m"),
                    state=model.INSTANCE_STATE_LOADING,
                    load_progress=model.LoadProgress(bytes_done=25, bytes_total=100),
                    max_active_requests=4,
                    active_requests=2,
                )
            ],
        ),
        **changes,
    )


def test_the_fleet_shows_neurons_devices_and_instances():
    shown = show(*tables.fleet_tables(op.GetFleetResponse(neurons=[a_neuron()])))

    for words in ("beast", "EPYC", "1 MiB / 8.0 GiB", "LOADING 25%", "2/4", "ready"):
        assert words in shown


@pytest.mark.parametrize(
    ("changes", "word"), [({"lost": True}, "lost"), ({"cordoned": True}, "cordoned")]
)
def test_a_neuron_that_takes_no_work_says_so(changes, word):
    assert word == tables.neuron_state(a_neuron(**changes)).plain


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            reg.EnsureModelResponse(queued=reg.PlacementQueued(position=2, reason="a drain")),
            "waits (a drain), 2 before it",
        ),
        (
            reg.EnsureModelResponse(
                evicting=reg.PlacementEvicting(neuron="beast", victim_models=["a", "b"])
            ),
            "makes room on beast: unloads a, b",
        ),
        (
            reg.EnsureModelResponse(
                loading=reg.PlacementLoading(
                    neuron="beast", progress=model.LoadProgress(modules_done=1, modules_total=2)
                )
            ),
            "loads on beast: 50%",
        ),
        (
            reg.EnsureModelResponse(
                loading=reg.PlacementLoading(
                    neuron="beast",
                    progress=model.LoadProgress(
                        phase=model.LOAD_PHASE_DOWNLOADING,
                        bytes_done=1 << 30,
                        bytes_total=4 << 30,
                    ),
                    eta=duration_pb2.Duration(seconds=90),
                )
            ),
            "is downloaded on beast: 25% of 4.0 GiB, about 90 s left",
        ),
        (reg.EnsureModelResponse(placed=reg.Placement(neuron="beast")), "is ready on beast"),
        (reg.EnsureModelResponse(), "starts"),
    ],
)
def test_a_step_is_a_sentence(step, words):
    assert words == tables.step_words(step)


@pytest.mark.parametrize(
    ("step", "bar"),
    [
        (reg.EnsureModelResponse(), (0.0, None)),
        (reg.EnsureModelResponse(placed=reg.Placement(neuron="n")), (1.0, 1.0)),
        (
            reg.EnsureModelResponse(
                loading=reg.PlacementLoading(
                    progress=model.LoadProgress(bytes_done=1, bytes_total=4)
                )
            ),
            (0.25, 1.0),
        ),
        (
            reg.EnsureModelResponse(
                loading=reg.PlacementLoading(
                    progress=model.LoadProgress(phase=model.LOAD_PHASE_WARMING)
                )
            ),
            (1.0, 1.0),
        ),
        (
            reg.EnsureModelResponse(
                loading=reg.PlacementLoading(
                    progress=model.LoadProgress(phase=model.LOAD_PHASE_RESOLVING)
                )
            ),
            (0.0, None),
        ),
    ],
)
def test_a_bar_fills_as_far_as_is_known(step, bar):
    assert bar == tables.bar_of(step)


def test_models_show_where_they_are():
    models = [
        op.ModelStatus(
            model=reg.CatalogueModel(model="loaded", aliases=["l"]),
            locations=[
                op.ModelLocation(
                    neuron="beast", instance=model.Instance(state=model.INSTANCE_STATE_READY)
                )
            ],
        ),
        op.ModelStatus(
            model=reg.CatalogueModel(model="stored"), locations=[op.ModelLocation(neuron="nas")]
        ),
        op.ModelStatus(model=reg.CatalogueModel(model="nowhere")),
    ]

    shown = show(tables.models_table(models))

    for words in ("beast (ready)", "on disk: nas", "not loaded"):
        assert words in shown


def test_an_explanation_shows_every_candidate_and_reason():
    answer = op.ExplainPlacementResponse(
        summary="m would go to beast",
        candidates=[
            op.PlacementCandidate(neuron="beast", feasible=True, reason="free fit"),
            op.PlacementCandidate(neuron="nas", feasible=False, reason="cordoned"),
        ],
    )

    shown = show(tables.explanation(answer))

    for words in ("m would go to beast", "free fit", "possible", "refused", "cordoned"):
        assert words in shown


def test_a_model_that_cannot_be_loaded_says_why():
    problem = "a.gguf: it is cut off [/x] (next attempt in 4 s)"
    pending = [op.PendingPlacement(model="m", problem=problem)]

    shown = show(*tables.fleet_tables(op.GetFleetResponse(pending=pending)))

    assert problem in shown
