"""A catalogue that is read again while its models are loaded and work."""

from __future__ import annotations

from cortex.v1 import operator_service_pb2 as op
from tests.doubles.registry_neuron import ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import document, running_fleet
from tests.integration.registry.two_models import TWO


async def test_a_change_of_what_needs_no_load_reaches_what_is_loaded(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        placed = await fleet.placed("a")
        neuron.work("a", 1)
        more = """aliases = ["first", "other"]
description = "words"
limits = { output = 99, wait = "5m", sequences = 3 }
sampling = { top_k = 7 }
"""
        edited = TWO.replace('aliases = ["first"]\n', more)
        (tmp_path / "models.toml").write_text(edited)

        answer = await fleet.operator.ReloadCatalogue(op.ReloadCatalogueRequest())

        assert list(answer.changed) == ["a"]
        assert (await fleet.placed("other")).instance_id == placed.instance_id
        instance = neuron.instances[placed.instance_id]
        await eventually(lambda: instance.spec.default_sampling.top_k == 7)
        neuron.work("a", 0)
        await fleet.heard(neuron)
        (tmp_path / "models.toml").write_text(TWO)
        await fleet.operator.ReloadCatalogue(op.ReloadCatalogueRequest())
        await eventually(lambda: not instance.spec.default_sampling.ListFields())
        assert (len(neuron.loads), neuron.unloads) == (1, [])
