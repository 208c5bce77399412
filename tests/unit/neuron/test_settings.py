from __future__ import annotations

import pathlib

import pytest

from services.backplane.settings import Document, SettingsError
from services.neuron.settings import NeuronSettings


def read(**keys: object) -> NeuronSettings:
    return Document({"neuron": keys}, "cortex.toml").section("neuron", NeuronSettings)


def test_defaults_are_the_documented_ports():
    settings = read()

    assert settings.listen.endswith(":13131")
    assert settings.metrics_listen.endswith(":13132")
    assert settings.registry == ("127.0.0.1:31315",)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "127.0.0.1:9"),
        ({"metrics_listen": ""}, ""),
        ({"advertise": "beast:13131"}, ""),
        ({"advertise": "beast:13131", "metrics_listen": "0.0.0.0:0"}, "beast:9"),
        ({"advertise": "beast:13131", "metrics_listen": "10.0.0.7:0"}, "10.0.0.7:9"),
        ({"listen": "10.0.0.8:13131", "metrics_listen": "0.0.0.0:0"}, "10.0.0.8:9"),
    ],
)
def test_others_are_told_where_metrics_are_if_they_can_reach_them(keys, told):
    assert told == read(**keys).advertised_metrics(9)


def test_the_store_is_the_first_folder_and_is_searched_too(tmp_path):
    assert read(models_dirs=[str(tmp_path)]).store == tmp_path
    chosen = read(models_dirs=["/a", "/b"], store_dir="/c")
    assert chosen.model_folders == tuple(map(pathlib.Path, ("/a", "/b", "/c")))
    assert read(models_dirs=[]).store.is_absolute()


def test_no_registry_means_waiting_to_be_dialled():
    assert read(registry=[]).registry == ()


def test_limits_of_workers_are_a_table_of_their_own():
    assert read(workers={"deaths": 3}).workers.deaths == 3


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"listen": "x"}, "neuron.listen: 'x' is not host:port"),
        ({"registry": ["a:b"]}, "neuron.registry[0]: 'a:b': 'b' is not a port"),
        ({"metrics_listen": "1.2.3.4:99999"}, "is not a port"),
        ({"max_sequences": 0}, "neuron.max_sequences: Expected `int` >= 1"),
        ({"drain_seconds": -1}, "neuron.drain_seconds: Expected `float` >= 0.0"),
        ({"labels": ["a"]}, "neuron.labels"),
        ({"colour": "red"}, "unknown field `colour`"),
        ({"workers": {"x": 1}}, "neuron.workers"),
    ],
)
def test_errors_name_source_key_and_reason(keys, words):
    with pytest.raises(SettingsError) as refused:
        read(**keys)

    assert str(refused.value).startswith("cortex.toml: neuron")
    assert words in str(refused.value)
