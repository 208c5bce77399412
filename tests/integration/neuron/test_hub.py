"""`hf:` sources against a hub on this machine, through the real huggingface_hub."""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
import shutil

import pytest

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.neuron.sources.hub import HubSource
from services.neuron.sources.resolver import Sources
from tests.doubles import scripted
from tests.doubles.hub_models import FOLDER, HUGE, REPO, WEIGHTS
from tests.doubles.neuron_host import PATIENCE_SECONDS, refusal, running_neuron

pytest.importorskip("huggingface_hub")

# The library writes what it has got in chunks; a connection that is cut costs the chunk it was at.
CHUNK = 10 << 20


class Bytes:
    """What was told of a download."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))


async def fetch(source: HubSource, revision: str = "main", quant: str = "") -> pathlib.Path:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await source.fetch(f"{REPO}@{revision}", quant, Bytes())


async def failing(source: HubSource, location: str, quant: str = "") -> FleetError:
    with pytest.raises(FleetError) as failed:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await source.fetch(location, quant, Bytes())
    return failed.value


def files_of(folder: pathlib.Path) -> set[str]:
    """Everything below a folder except what the source keeps for itself."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return found - {".listing.json"}


async def test_a_folder_of_safetensors_comes_without_what_no_engine_reads(hub, source):
    hub.push(REPO, FOLDER)
    told = Bytes()

    path = await source.fetch(f"{REPO}@main", "", told)

    assert files_of(path) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    total = len(WEIGHTS) + len(FOLDER["config.json"]) + len(FOLDER["tokenizer.json"])
    assert told.told[-1] == (total, total)
    assert path.name == "tiny@main"
    assert list(path.parent.iterdir()) == [path]


async def test_the_quant_chooses_the_file(hub, source):
    big, small = WEIGHTS[:5000], WEIGHTS[5000:9000]
    hub.push(REPO, {"tiny.Q4_K_M.gguf": small, "tiny.Q8_0.gguf": big, "mmproj-f16.gguf": big})

    path = await fetch(source, quant="q4_k_m")

    assert path.read_bytes() == small
    assert files_of(path.parent) == {"tiny.Q4_K_M.gguf"}
    assert source.find(f"{REPO}@main", "Q8_0") is None
    refused = await failing(source, f"{REPO}@main")
    assert refused.reason is Reason.BAD_REQUEST
    assert "tiny.Q8_0.gguf" in refused.message


async def test_a_cut_connection_is_resumed_where_it_was_cut(hub, source):
    hub.push(REPO, {"tiny.gguf": HUGE})
    hub.cut_after = [11_000_000, 11_000_000]

    path = await fetch(source)

    assert path.read_bytes() == HUGE
    assert hub.downloads() == ["", f"bytes={CHUNK}-", f"bytes={2 * CHUNK}-"]


async def test_a_download_that_was_abandoned_goes_on_in_another_process(hub, source):
    hub.push(REPO, {"tiny.gguf": HUGE})
    hub.cut_after = [11_000_000]
    hub.goes_silent = True  # what resumes gets no answer until it has been ended
    grown = asyncio.Event()

    def note(done: int, _: int) -> None:
        if done:
            grown.set()

    first = asyncio.create_task(source.fetch(f"{REPO}@main", "", note))
    await asyncio.wait_for(grown.wait(), PATIENCE_SECONDS)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    hub.is_silent = False
    hub.released.set()
    assert source.find(f"{REPO}@main", "") is None
    hub.asked.clear()

    path = await fetch(source)

    assert path.read_bytes() == HUGE
    resumed = int(hub.downloads()[-1].removeprefix("bytes=").removesuffix("-"))
    assert 0 < resumed <= CHUNK  # what had been written when the first was ended
    assert "" not in hub.downloads()


async def test_what_is_here_is_found_without_a_hub(hub, source, tmp_path):
    hub.push(REPO, FOLDER)
    path = await fetch(source)
    asked = len(hub.asked)
    nowhere = HubSource(tmp_path / "store", stall_seconds=30, endpoint="http://127.0.0.1:1")

    assert nowhere.find(f"{REPO}@main", "") == path
    assert len(hub.asked) == asked


async def test_a_branch_means_what_it_meant_at_first(hub, source):
    old, new = WEIGHTS[:5000], WEIGHTS[5000:]
    first = hub.push(REPO, {"a.Q4.gguf": old, "a.Q8.gguf": old + b"8"})
    await fetch(source, quant="Q4")
    hub.push(REPO, {"a.Q4.gguf": new, "a.Q8.gguf": new + b"8"})
    hub.branches[REPO]["first"] = first  # a commit stays reachable

    path = await fetch(source, quant="Q8")

    assert path.read_bytes() == old + b"8"
    assert files_of(path.parent) == {"a.Q4.gguf", "a.Q8.gguf"}


async def test_a_commit_is_a_revision(hub, source):
    commit = hub.push(REPO, {"tiny.gguf": WEIGHTS[:5000]})
    hub.push(REPO, {"tiny.gguf": WEIGHTS[5000:]})
    hub.branches[REPO]["tag"] = commit

    assert (await fetch(source, commit)).read_bytes() == WEIGHTS[:5000]


async def test_wrong_bytes_are_thrown_away_and_told(hub, source):
    hub.push(REPO, {"tiny.gguf": WEIGHTS})
    hub.wrong[hashlib.sha256(WEIGHTS).hexdigest()] = bytes(len(WEIGHTS))

    bad = await failing(source, f"{REPO}@main")

    assert bad.reason is Reason.MODEL_FILE_BAD
    assert "digest" in bad.message
    hub.wrong.clear()
    assert (await fetch(source)).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("acme/other@main", Reason.MODEL_UNKNOWN),
        (f"{REPO}@nothing", Reason.MODEL_UNKNOWN),
        (f"{REPO}@main/*.nothing", Reason.MODEL_UNKNOWN),
        ("acme/gated@main", Reason.SOURCE_UNAVAILABLE),
        (f"{REPO}", Reason.BAD_REQUEST),
    ],
)
async def test_what_cannot_be_had_says_why(hub, source, location, reason):
    hub.push(REPO, FOLDER)
    hub.push("acme/gated", FOLDER)
    hub.gated.add("acme/gated")

    assert (await failing(source, location)).reason is reason


async def test_a_token_opens_a_gated_model_and_is_not_shown_to_its_storage(
    hub, source, monkeypatch
):
    hub.push(REPO, {"tiny.gguf": WEIGHTS})
    hub.gated.add(REPO)
    monkeypatch.setenv("HF_TOKEN", "secret")

    assert (await fetch(source)).read_bytes() == WEIGHTS

    shown = {one.path.startswith("/storage/"): one.authorization for one in hub.asked}
    assert shown == {False: "Bearer secret", True: ""}


async def test_a_hub_that_is_not_there_is_unavailable(tmp_path):
    source = HubSource(tmp_path, stall_seconds=30, endpoint="http://127.0.0.1:1")

    failed = await failing(source, f"{REPO}@main")

    assert failed.reason is Reason.SOURCE_UNAVAILABLE


async def test_a_hub_that_says_nothing_is_given_up(hub, tmp_path):
    hub.push(REPO, {"tiny.gguf": WEIGHTS})
    hub.is_silent = True
    source = HubSource(tmp_path, stall_seconds=3, endpoint=hub.endpoint)

    failed = await failing(source, f"{REPO}@main")

    assert failed.reason is Reason.SOURCE_UNAVAILABLE
    assert "stood still" in failed.message


async def test_a_full_disk_is_told_before_the_download(hub, source, tmp_path, monkeypatch):
    hub.push(REPO, {"tiny.gguf": WEIGHTS})
    full = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr("services.neuron.sources.disk_space.shutil.disk_usage", lambda _: full)

    refused = await failing(source, f"{REPO}@main")

    assert refused.reason is Reason.NO_ROOM
    assert "MiB free" in refused.message
    assert not hub.downloads()


async def test_without_the_library_it_says_what_to_install(source, monkeypatch):
    monkeypatch.setattr("services.neuron.sources.hub.importlib.util.find_spec", lambda _: None)

    refused = await failing(source, f"{REPO}@main")

    assert refused.reason is Reason.NOT_SUPPORTED
    assert "pip install 'cortex-fleet[hf]'" in refused.message


async def test_files_above_the_plain_limit_come_by_the_librarys_own_way(hub, tmp_path):
    hub.push(REPO, {"tiny.gguf": WEIGHTS})
    source = HubSource(
        tmp_path, stall_seconds=30, endpoint=hub.endpoint, http_limit_bytes=1_000_000
    )

    path = await fetch(source)

    assert path.read_bytes() == WEIGHTS
    assert "HEAD" in {one.method for one in hub.asked}
    assert files_of(path.parent) == {"tiny.gguf"}


async def test_two_who_want_the_same_fetch_it_once(hub, source):
    hub.push(REPO, {"tiny.gguf": WEIGHTS})

    one, other = await asyncio.gather(fetch(source), fetch(source))

    assert one == other
    assert hub.downloads() == [""]


async def test_half_a_model_is_not_listed(hub, source, tmp_path):
    """The config is there long before the tensors are."""
    hub.push(REPO, FOLDER)
    hub.is_silent = False
    store = tmp_path / "store"
    listing = Sources({}, named={}, folders=(store,))
    hub.wrong[hashlib.sha256(WEIGHTS).hexdigest()] = b"short" * 1000

    await failing(source, f"{REPO}@main")

    assert listing.listing() == ([], [])
    hub.wrong.clear()
    await fetch(source)
    listing.listing()
    assert [one.model for one in listing.listing()[0]] == ["tiny@main"]


async def test_a_neuron_loads_from_the_hub_and_again_without_it(hub, tmp_path):
    made = tmp_path / "made.gguf"
    scripted.build(made, scripted.Script(name="bravo"))
    data = made.read_bytes()
    hub.push(REPO, {"bravo.Q8_0.gguf": data})
    wanted = model.LoadSpec(
        model="bravo", source=f"hf:{REPO}@main", sha256=hashlib.sha256(data).hexdigest()
    )
    folder = tmp_path / "models"
    folder.mkdir()
    async with running_neuron(folder, hf_endpoint=hub.endpoint) as host:
        steps = [step async for step in host.stub.Load(neuron.LoadRequest(spec=wanted))]
        assert steps[-1].ready.spec.model == "bravo"
        phases = {step.progress.phase for step in steps[:-1]}
        assert model.LOAD_PHASE_DOWNLOADING in phases
    async with running_neuron(folder, hf_endpoint="http://127.0.0.1:1") as host:
        assert (await host.load("bravo", source=f"hf:{REPO}@main")).engine == "llamacpp"
        other = model.LoadSpec(model="bravo2", source=f"hf:{REPO}@main", sha256="0" * 64)
        bad = await refusal(host.stub.Load(neuron.LoadRequest(spec=other)))
        assert bad.reason is Reason.MODEL_FILE_BAD
