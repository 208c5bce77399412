"""Files that people copy into a models folder while the neuron runs."""

from __future__ import annotations

import time

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from tests.doubles import scripted
from tests.doubles.neuron_host import chat, refusal, running_neuron
from tests.doubles.scripted import Script


async def test_a_file_that_is_copied_in_is_offered_within_seconds_and_not_before_it_is_whole(
    tmp_path,
):
    folder = tmp_path / "models"
    folder.mkdir()
    data = scripted.build(tmp_path / "m.gguf", Script(context=777)).read_bytes()
    async with running_neuron(folder) as host:
        path = folder / "dropped.gguf"
        with path.open("wb", buffering=0) as copy:
            copy.write(data[: len(data) // 2])
            await host.until(lambda status: any("dropped" in p for p in status.report.problems))
            assert not (await host.status()).report.stored_models
            early = neuron.LoadRequest(spec=model.LoadSpec(model="dropped"))
            refused = await refusal(host.stub.Load(early))
            copy.write(data[len(data) // 2 :])
        at = time.monotonic()
        status = await host.until(lambda status: len(status.report.stored_models) == 1)

        assert time.monotonic() - at < 10
        assert refused.reason is Reason.MODEL_FILE_BAD
        assert "is not whole" in refused.message
        (told,) = status.report.stored_models
        assert (told.model, told.max_context_tokens) == ("dropped", 777)
        assert list(told.capabilities) == [model.CAPABILITY_CHAT, model.CAPABILITY_COMPLETION]
        assert not list(status.report.problems)
        loaded = await host.load("dropped")
        assert loaded.max_context_tokens == 777
        events = [event async for event in host.stub.Generate(chat(model="dropped"))]
        assert events[-1].HasField("finished")


async def test_quantisations_of_a_folder_are_offered_each_and_one_by_default(tmp_path):
    (tmp_path / "tiny").mkdir()
    async with running_neuron(tmp_path) as host:
        for number, label in enumerate(("Q4_K_M", "Q8_0")):
            words = (f"{label}", " it", f" is{number}")
            scripted.build(
                tmp_path / "tiny" / f"tiny-{label}.gguf",
                Script(words=words, width=128 * (number + 1)),
            )
        wanted = ["tiny", "tiny:Q4_K_M", "tiny:Q8_0"]
        await host.until(lambda status: [m.model for m in status.report.stored_models] == wanted)

        said = {}
        for name in wanted[1:]:
            await host.load(name)
            events = [e async for e in host.stub.Generate(chat(model=name))]
            said[name] = "".join(e.text.text for e in events if e.HasField("text"))
        assert said == {"tiny:Q4_K_M": "Q4_K_M it is0", "tiny:Q8_0": "Q8_0 it is1"}
        assert (await host.load("tiny")).weights.source == (
            await host.load("tiny:Q8_0")
        ).weights.source


async def test_a_context_that_is_too_long_for_the_machine_is_shortened_unless_asked_for(tmp_path):
    """As trained it would take 2 GiB of the 640 MiB that there are."""
    budget = 640 << 20
    async with running_neuron(tmp_path, memory_budget_bytes=budget) as host:
        host.script("long", context=4 << 20)
        await host.until(lambda status: bool(status.report.stored_models))
        (stored,) = (await host.status()).report.stored_models

        loaded = await host.load("long")

        assert stored.max_context_tokens == 4 << 20
        assert loaded.max_context_tokens == stored.default_cache_tokens
        assert 8_192 <= loaded.max_context_tokens < 1 << 20
        assert sum(one.bytes for one in loaded.memory) < budget
        asked = model.LoadSpec(model="long", max_context_tokens=4 << 20)
        fits = await host.stub.CanFit(neuron.CanFitRequest(spec=asked))
        assert fits.required_bytes > budget
        events = [event async for event in host.stub.Generate(chat(model="long"))]
        assert events[-1].HasField("finished")
