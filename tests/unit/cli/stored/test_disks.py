"""How people name what they want to pull."""

from __future__ import annotations

import json
import re

import pytest

from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as registry
from services.cli.stored.disks import pull_source, show_disks

DIGEST = f"#sha256={'0' * 64}"


@pytest.mark.parametrize(
    ("text", "source", "quant"),
    [
        ("hf:a/b", "hf:a/b@main", ""),
        ("hf:a/b@v1", "hf:a/b@v1", ""),
        ("hf:a/b:Q4_K_M", "hf:a/b@main", "Q4_K_M"),
        ("hf:a/b@v1:q8_0", "hf:a/b@v1", "q8_0"),
        ("hf:a/b:x-Q4_K_M.gguf", "hf:a/b@main/x-Q4_K_M.gguf", ""),
        ("hf:a/b:*Q4*", "hf:a/b@main/*Q4*", ""),
        ("hf:a/b:deep/x.gguf", "hf:a/b@main/deep/x.gguf", ""),
        ("hf:a/b@v1/deep/x.gguf", "hf:a/b@v1/deep/x.gguf", ""),
        (f"hf:a/b:x.gguf{DIGEST}", f"hf:a/b@main/x.gguf{DIGEST}", ""),
        ("package:p==1", "package:p==1", ""),
        ("a/b", "hf:a/b@main", ""),
        ("a/b:Q4_K_M", "hf:a/b@main", "Q4_K_M"),
    ],
)
def test_a_source_as_people_write_it(text, source, quant):
    assert pull_source(text) == (source, quant)


@pytest.mark.parametrize(
    "text", ["", "a", "./a/b", "/a/b", "hf:a", "hf:a/b/", "hf:a/b:", "hf:a/b@", "http://x/y"]
)
def test_what_is_no_source_is_told(text):
    with pytest.raises(ValueError, match="is no source"):
        pull_source(text)


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("https://hub.example/a/b-GGUF", "hf:a/b-GGUF"),
        ("https://hub.example/a/b/tree/v1", "hf:a/b@v1"),
        ("https://hub.example/a/b/blob/main/Q4/x.gguf?download=true", "hf:a/b@main/Q4/x.gguf"),
        ("hub.example/a/b:Q4_K_M", "hf:a/b:Q4_K_M"),
    ],
)
def test_for_an_address_it_is_told_what_is_meant(address, meant):
    with pytest.raises(ValueError, match=f"it is {re.escape(meant)}$"):
        pull_source(address)
    pull_source(meant)


def fleet(*problems: str) -> op.GetFleetResponse:
    report = neuron.NeuronReport(problems=problems)
    named = neuron.NeuronIdentity(name="one")
    return op.GetFleetResponse(neurons=[registry.Neuron(identity=named, report=report)])


def test_without_a_model_it_says_how_to_get_one(capsys):
    show_disks(fleet(), as_json=False)

    told = " ".join(capsys.readouterr().out.split())
    assert "cortex pull hf:OWNER/NAME:Q4_K_M" in told
    assert "models_dirs" in told


def test_files_that_are_not_offered_are_told_with_the_reason(capsys):
    show_disks(fleet("x.gguf is cut off within its header."), as_json=False)

    assert "one: not offered: x.gguf is cut off" in " ".join(capsys.readouterr().out.split())


def test_without_a_neuron_there_is_no_disk(capsys):
    show_disks(op.GetFleetResponse(), as_json=False)

    assert "No neuron is attached" in capsys.readouterr().out


def test_as_json_there_are_only_models(capsys):
    show_disks(fleet("x.gguf is cut off within its header."), as_json=True)

    assert capsys.readouterr().out == ""


def test_files_with_several_names_are_one_line(capsys):
    one = fleet()
    for name in ("m", "m:Q4_K_M"):
        one.neurons[0].report.stored_models.add(model=name, source="path:/m-Q4_K_M.gguf")

    show_disks(one, as_json=True)

    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["model"], line["aliases"]) == ("m:Q4_K_M", ["m"])
