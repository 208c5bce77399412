import dataclasses

import msgspec

from services.registry.fleet.records import Member, NeuronIdentity
from services.registry.fleet.scrape_targets import scrape_targets

LEFT = NeuronIdentity(
    "left",
    "i",
    "left:13131",
    labels={"zone": "cellar", "a.b-c": "ü"},
    version="1.2",
    metrics_address="left:13132",
)


def test_each_neuron_is_a_target_with_what_is_known_of_it():
    right = dataclasses.replace(LEFT, name="right", labels={}, metrics_address="right:13132")
    members = [Member(right, 1, is_lost=True), Member(LEFT, 1, is_cordoned=True)]

    told = msgspec.json.decode(msgspec.json.encode(scrape_targets(members)))

    assert [
        {
            "targets": ["left:13132"],
            "labels": {
                "neuron": "left",
                "__meta_cortex_state": "cordoned",
                "__meta_cortex_address": "left:13131",
                "__meta_cortex_version": "1.2",
                "__meta_cortex_label_zone": "cellar",
                "__meta_cortex_label_a_b_c": "ü",
            },
        },
        {
            "targets": ["right:13132"],
            "labels": {
                "neuron": "right",
                "__meta_cortex_state": "lost",
                "__meta_cortex_address": "left:13131",
                "__meta_cortex_version": "1.2",
            },
        },
    ] == told


def test_a_neuron_that_serves_no_metrics_is_none():
    assert [] == scrape_targets([Member(dataclasses.replace(LEFT, metrics_address=""), 1)])
