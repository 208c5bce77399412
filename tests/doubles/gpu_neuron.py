"""A real neuron whose library is llama.cpp with Vulkan on a device in software."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from services.neuron.settings import LlamaCppSettings, WorkerLimits
from tests.doubles import vulkan_library
from tests.doubles.neuron_host import NeuronHost, chat, running_neuron

GPU = vulkan_library.DEVICE_ID
MIB = 1 << 20
# The first pass compiles shaders, which takes long where they are not in the cache.
PATIENT = WorkerLimits(
    first_pause_seconds=0.05, start_seconds=60.0, stall_seconds=300.0, load_stall_seconds=300.0
)


def gpu_neuron(
    folder: pathlib.Path, settings: dict[str, Any] | None = None, **choices: Any
) -> contextlib.AbstractAsyncContextManager[NeuronHost]:
    """The neuron; `choices` are those of `[neuron.llamacpp]`."""
    llamacpp = LlamaCppSettings(library=str(vulkan_library.FOLDER), **choices)
    return running_neuron(folder, llamacpp=llamacpp, workers=PATIENT, **(settings or {}))


async def said(host: NeuronHost, name: str, text: str = "hi") -> str:
    """What a model answers."""
    stop = generation.StopRules(max_tokens=8)
    events = [event async for event in host.stub.Generate(chat(text, model=name, stop=stop))]
    return "".join(event.text.text for event in events if event.HasField("text"))


def held(instance: model.Instance) -> dict[str, int]:
    """Bytes by device."""
    return {memory.device_id: memory.bytes for memory in instance.memory}
