"""A neuron's disk: fetched before anything is loaded, passed on to neighbours, removed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import pytest

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import storage_service_pb2 as pb
from cortex.v1.storage_service_pb2_grpc import (
    StorageServiceServicer,
    add_StorageServiceServicer_to_server,
)
from services.backplane.errors import Reason
from tests.doubles import scripted
from tests.doubles.hub_models import HUGE, REPO
from tests.doubles.neuron_host import NeuronHost, refusal, running_neuron
from tests.doubles.scripted import Script

ORIGIN = f"hf:{REPO}@main"
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def data(tmp_path: pathlib.Path) -> bytes:
    return scripted.build(tmp_path / "made.gguf", Script(name="bravo")).read_bytes()


@contextlib.asynccontextmanager
async def neuron_of(
    tmp_path: pathlib.Path, name: str, endpoint: str, **settings: Any
) -> AsyncGenerator[NeuronHost]:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    async with running_neuron(folder, name=name, hf_endpoint=endpoint, **settings) as host:
        yield host


def neighbour(host: NeuronHost) -> model.Neighbour:
    return model.Neighbour(
        name=host.served.identity.name, address=f"127.0.0.1:{host.served.address.port}"
    )


async def fetched(
    host: NeuronHost, source: str = ORIGIN, quant: str = "", *neighbours: model.Neighbour
) -> list[pb.FetchResponse]:
    request = pb.FetchRequest(source=source, quant=quant, neighbours=neighbours)
    return [step async for step in host.storage.Fetch(request)]


async def stored(host: NeuronHost) -> list[str]:
    return [one.model for one in (await host.status()).report.stored_models]


async def test_what_is_fetched_is_offered_at_once_with_its_origin(hub, tmp_path, data):
    hub.push(REPO, {"bravo-Q4_K_M.gguf": data, "bravo-Q8_0.gguf": data})
    async with neuron_of(tmp_path, "one", hub.endpoint) as host:
        steps = await fetched(host, ORIGIN, "Q4_K_M")

        assert steps[-1].stored.model == "bravo-Q4_K_M"
        assert any(s.progress.phase == model.LOAD_PHASE_DOWNLOADING for s in steps[:-1])
        (told,) = (await host.status()).report.stored_models
        assert (told.model, told.origin) == ("bravo-Q4_K_M", ORIGIN)
        assert (await fetched(host, ORIGIN, "q8_0"))[-1].stored.model == "bravo:Q8_0"
        assert await stored(host) == ["bravo", "bravo:Q4_K_M", "bravo:Q8_0"]
        assert len(await fetched(host, ORIGIN, "Q8_0")) <= 2
        assert (await host.load("bravo:Q8_0")).engine == "llamacpp"


async def test_a_file_that_was_damaged_on_the_disk_is_fetched_anew(hub, tmp_path, data):
    hub.push(REPO, {"bravo-Q4_K_M.gguf": data, "none.gguf": b"no model" * 1000})
    async with neuron_of(tmp_path, "one", hub.endpoint) as host:
        await fetched(host, ORIGIN, "Q4_K_M")
        (file,) = tmp_path.glob("one/hf/**/bravo-Q4_K_M.gguf")
        file.write_bytes(bytes(len(data)))
        before = len(hub.downloads())

        steps = await fetched(host, ORIGIN, "Q4_K_M")

        assert steps[-1].stored.model == "bravo-Q4_K_M"
        assert file.read_bytes() == data
        assert len(hub.downloads()) > before
        # a good header says nothing of what is behind it, digests do
        file.write_bytes(data[:-9] + b"\1" * 9)
        assert (await fetched(host, ORIGIN, "Q4_K_M"))[-1].HasField("stored")
        assert file.read_bytes() != data
        verifying = pb.FetchRequest(source=ORIGIN, quant="Q4_K_M", verify=True)
        steps = [step async for step in host.storage.Fetch(verifying)]
        assert steps[-1].stored.model == "bravo-Q4_K_M"
        assert file.read_bytes() == data
        file.write_bytes(bytes(len(data)))
        source = model.LoadSpec(model="b", source=ORIGIN, quant="Q4_K_M")
        loading = [s async for s in host.stub.Load(neuron.LoadRequest(spec=source))]
        assert loading[-1].HasField("ready")
        # what is no model at the hub either is not fetched again and again
        error = await refusal(host.storage.Fetch(pb.FetchRequest(source=ORIGIN, quant="none")))
        before = len(hub.downloads())
        again = await refusal(host.storage.Fetch(pb.FetchRequest(source=ORIGIN, quant="none")))
        assert error.message == again.message
        assert len(hub.downloads()) == before


async def test_a_fetch_is_joined_and_ends_with_its_last_caller_and_goes_on_later(hub, tmp_path):
    hub.push(REPO, {"huge.gguf": HUGE})
    hub.cut_after, hub.goes_silent = [19_000_000], True
    async with neuron_of(tmp_path, "one", hub.endpoint) as host:
        request = pb.FetchRequest(source=ORIGIN)
        first, second = host.storage.Fetch(request), host.storage.Fetch(request)

        async def until_it_comes(call):
            async for step in call:
                if step.progress.bytes_done >= 9_000_000:
                    return

        await asyncio.gather(until_it_comes(first), until_it_comes(second))
        first.cancel()
        second.cancel()
        hub.is_silent = hub.goes_silent = False
        hub.released.set()
        before = len(hub.downloads())

        # the file is no model, which is told only once it is here
        refused = await refusal(host.storage.Fetch(request))

        assert refused.reason is Reason.MODEL_FILE_BAD
        assert int(hub.downloads()[before].removeprefix("bytes=").rstrip("-")) >= 9_000_000


async def test_a_neighbour_is_asked_before_the_hub_which_is_not_asked_at_all(hub, tmp_path, data):
    hub.push(REPO, {"bravo.gguf": data})
    async with (
        neuron_of(tmp_path, "one", hub.endpoint) as one,
        neuron_of(tmp_path, "two", hub.endpoint) as two,
    ):
        await fetched(one)
        asked = len(hub.asked)

        steps = await fetched(two, ORIGIN, "", neighbour(one))

        assert steps[-1].stored.model == "bravo"
        assert len(hub.asked) == asked
        copy = next((tmp_path / "two").rglob("bravo.gguf"))
        assert copy.read_bytes() == data
    async with neuron_of(tmp_path, "two", NOBODY) as two:  # its store is as good as the hub's own
        wanted = model.LoadSpec(model="x", source=ORIGIN)
        loading = [step async for step in two.stub.Load(neuron.LoadRequest(spec=wanted))]
        assert loading[-1].HasField("ready")


async def test_a_load_gets_its_files_from_a_neighbour(hub, tmp_path, data):
    hub.push(REPO, {"bravo.gguf": data})
    async with (
        neuron_of(tmp_path, "one", hub.endpoint) as one,
        neuron_of(tmp_path, "two", NOBODY) as two,
    ):
        await fetched(one)
        wanted = model.LoadSpec(model="b", source=ORIGIN, sha256=hashlib.sha256(data).hexdigest())
        order = neuron.LoadRequest(spec=wanted, neighbours=[neighbour(one)])

        steps = [step async for step in two.stub.Load(order)]

        assert steps[-1].ready.spec.model == "b"


async def test_two_that_fetch_at_once_ask_the_hub_once(hub, tmp_path, data):
    hub.push(REPO, {"bravo.gguf": data, "huge.bin": HUGE})
    hub.is_silent = True
    async with (
        neuron_of(tmp_path, "one", hub.endpoint) as one,
        neuron_of(tmp_path, "two", hub.endpoint) as two,
    ):
        source = f"{ORIGIN}/bravo.gguf"
        first = asyncio.create_task(fetched(one, source))
        while not hub.downloads():
            await asyncio.sleep(0.02)
        second = asyncio.create_task(fetched(two, source, "", neighbour(one)))
        describe = pb.DescribeFilesRequest(origin=ORIGIN)
        assert (await one.storage.DescribeFiles(describe)).HasField("arriving_bytes")
        await asyncio.sleep(1.0)  # it has had time to ask the hub, and must not
        hub.is_silent = False
        hub.released.set()

        both = await asyncio.gather(first, second)

        assert [steps[-1].stored.model for steps in both] == ["bravo", "bravo"]
        assert len(hub.downloads()) == 1


async def test_a_neighbour_that_sends_wrong_bytes_is_not_believed(hub, tmp_path, data):
    hub.push(REPO, {"bravo.gguf": data})
    async with (
        neuron_of(tmp_path, "one", hub.endpoint) as one,
        neuron_of(tmp_path, "two", hub.endpoint) as two,
    ):
        await fetched(one)
        spoiled = next((tmp_path / "one").rglob("bravo.gguf"))
        spoiled.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        before = len(hub.downloads())

        await fetched(two, ORIGIN, "", neighbour(one))

        assert len(hub.downloads()) == before + 1
        assert next((tmp_path / "two").rglob("bravo.gguf")).read_bytes() == data


async def test_a_transfer_that_breaks_goes_on_at_the_next_neighbour_or_the_hub(hub, tmp_path):
    hub.push(REPO, {"huge.gguf": HUGE})
    slow = {"sharing": {"streams": 1, "bytes_per_second": 4_000_000}}
    async with neuron_of(tmp_path, "two", hub.endpoint) as two:
        async with neuron_of(tmp_path, "one", hub.endpoint, **_settings(slow)) as one:
            await refusal(one.storage.Fetch(pb.FetchRequest(source=ORIGIN)))
            call = two.storage.Fetch(pb.FetchRequest(source=ORIGIN, neighbours=[neighbour(one)]))
            async for step in call:
                if step.progress.bytes_done >= 4_000_000:
                    break
            before = len(hub.downloads())
        with contextlib.suppress(Exception):
            async for _ in call:
                pass

        ranges = hub.downloads()[before:]
        assert len(ranges) == 1
        assert int(ranges[0].removeprefix("bytes=").rstrip("-")) >= 4_000_000
        assert next((tmp_path / "two").rglob("huge.gguf")).read_bytes() == HUGE


async def test_files_that_are_not_of_a_fetched_repository_cannot_be_read(hub, tmp_path, data):
    hub.push(REPO, {"bravo.gguf": data})
    async with neuron_of(tmp_path, "one", hub.endpoint) as host:
        await fetched(host)
        told = await host.storage.DescribeFiles(pb.DescribeFilesRequest(origin=ORIGIN))
        assert list(told.whole) == ["bravo.gguf"]
        for change in (
            {"path": "../../../../made.gguf"},
            {"path": ".listing.json"},
            {"path": "/etc/passwd"},
            {"commit": "0" * 40},
            {"origin": "hf:acme/other@main"},
        ):
            asked = {"origin": ORIGIN, "commit": told.commit, "path": "bravo.gguf", **change}
            refused = await refusal(host.storage.ReadFile(pb.ReadFileRequest(**asked)))
            assert refused.reason is Reason.NOT_FOUND, change
        for origin in ("hf:../..@main", "hf:a/b", ""):
            request = pb.DescribeFilesRequest(origin=origin)
            assert (await refusal(host.storage.DescribeFiles(request))).reason is Reason.BAD_REQUEST


async def test_a_neuron_that_shares_nothing_has_nothing(hub, tmp_path, data):
    hub.push(REPO, {"bravo.gguf": data})
    off = _settings({"sharing": {"streams": 0}})
    async with neuron_of(tmp_path, "one", hub.endpoint, **off) as host:
        await fetched(host)
        told = await host.storage.DescribeFiles(pb.DescribeFilesRequest(origin=ORIGIN))
        assert not told.commit
        read = pb.ReadFileRequest(origin=ORIGIN, path="bravo.gguf")
        assert (await refusal(host.storage.ReadFile(read))).reason is Reason.NOT_SUPPORTED


async def test_only_what_was_fetched_and_is_not_in_use_is_removed(hub, tmp_path, data):
    hub.push(REPO, {"bravo-Q4_K_M.gguf": data, "bravo-Q8_0.gguf": data})
    async with neuron_of(tmp_path, "one", hub.endpoint) as host:
        host.script("mine")
        await fetched(host, ORIGIN, "Q4_K_M")
        await fetched(host, ORIGIN, "Q8_0")
        await host.until(lambda status: len(status.report.stored_models) == 4)

        async def remove(name: str):
            return await host.storage.RemoveStored(pb.RemoveStoredRequest(model=name))

        mine = await refusal(remove("mine"))
        assert mine.reason is Reason.BAD_REQUEST
        assert "was not fetched by this neuron" in mine.message
        assert (tmp_path / "one" / "mine.gguf").is_file()
        assert (await refusal(remove("nobody"))).reason is Reason.NOT_FOUND

        await host.load("other-name", source=ORIGIN, quant="Q8_0")
        used = await refusal(remove("bravo:Q8_0"))
        assert "in use: other-name is ready" in used.message
        removed = await remove("bravo:Q4_K_M")
        assert removed.freed_bytes == len(data)
        assert await stored(host) == ["bravo-Q8_0", "mine"]

        async for _ in host.stub.Unload(neuron.UnloadRequest(model="other-name")):
            pass
        await remove("bravo-Q8_0")
        assert await stored(host) == ["mine"]
        assert not (tmp_path / "one" / "hf" / "acme").exists()


async def test_when_a_model_was_last_used_outlives_the_neuron(tmp_path):
    async with neuron_of(tmp_path, "one", NOBODY) as host:
        host.script("bravo")
        await host.load("bravo")
        status = await host.until(
            lambda status: any(m.HasField("last_used_at") for m in status.report.stored_models)
        )
        at = status.report.stored_models[0].last_used_at
    async with neuron_of(tmp_path, "one", NOBODY) as host:
        (told,) = (await host.status()).report.stored_models
        assert told.last_used_at == at


def _settings(fields: dict[str, dict[str, int]]) -> dict[str, Any]:
    from services.neuron.settings import SharingSettings

    return {"sharing": SharingSettings(**fields["sharing"])}


class Hostile(StorageServiceServicer):
    """A neighbour whose commit is a way out of the store."""

    async def DescribeFiles(self, request: Any, context: Any) -> pb.DescribeFilesResponse:
        answer = pb.DescribeFilesResponse(commit="/../../../x", whole=["bravo.gguf"])
        answer.files.add(path="bravo.gguf", size=3)
        return answer

    async def ReadFile(self, request: Any, context: Any) -> AsyncIterator[pb.ReadFileResponse]:
        yield pb.ReadFileResponse(data=b"abc")


async def test_a_neighbour_says_not_where_its_files_go(hub, tmp_path, data):
    hub.push(REPO, {"bravo.gguf": data})
    server = grpc.aio.server()
    add_StorageServiceServicer_to_server(Hostile(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with neuron_of(tmp_path, "one", hub.endpoint) as host:
            hostile = model.Neighbour(name="two", address=f"127.0.0.1:{port}")
            steps = await fetched(host, ORIGIN, "", hostile)
    finally:
        await server.stop(None)

    assert steps[-1].stored.model == "bravo"
    assert not [path for path in tmp_path.rglob("*") if path.name == "x"]
