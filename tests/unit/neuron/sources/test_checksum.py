import hashlib
import subprocess
from pathlib import Path

import pytest

from services.backplane.errors import FleetError, Reason
from services.neuron.sources import checksum

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("path:/m.gguf", ("path:/m.gguf", "")),
        (f"path:/m.gguf#sha256={HEX}", ("path:/m.gguf", HEX)),
        (f"hf:a/b@main/x.gguf#sha256={HEX.upper()}", ("hf:a/b@main/x.gguf", HEX.upper())),
        ("path:/odd#name", ("path:/odd#name", "")),
        ("path:/m#sha256=abc", ("path:/m#sha256=abc", "")),
    ],
)
def test_a_source_may_name_its_digest(text: str, parts: tuple[str, str]) -> None:
    assert checksum.split(text) == parts


def folder(place: Path) -> Path:
    for name, content in {
        "b.txt": "two",
        "a/c.bin": "three",
        "B.txt": "one",
        ".git/x": "no",
    }.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return place


async def check(path: Path, expected: str) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    await checksum.check(path, checksum.files_of(path), expected, lambda *now: seen.append(now))
    return seen


def by_the_shell(place: Path) -> str:
    """As docs/operating.md says it."""
    command = (
        "find . -type f -not -path '*/.*' -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum"
        " | sha256sum"
    )
    said = subprocess.run(
        ["sh", "-c", command], cwd=place, capture_output=True, text=True, check=True
    )
    return said.stdout.split()[0]


async def test_a_folder_has_the_digest_that_the_shell_gives(tmp_path: Path) -> None:
    place = folder(tmp_path / "model")

    seen = await check(place, by_the_shell(place))

    assert seen[-1] == (11, 11)


async def test_a_file_has_its_own(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"weights")

    await check(file, hashlib.sha256(b"weights").hexdigest().upper())


async def test_a_folder_of_one_file_is_still_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"weights")
    own = hashlib.sha256(b"weights").hexdigest()

    with pytest.raises(FleetError):
        await check(tmp_path, own)
    await check(tmp_path, hashlib.sha256(f"{own}  x\n".encode()).hexdigest())


async def test_another_digest_is_told(tmp_path: Path) -> None:
    place = folder(tmp_path / "model")

    with pytest.raises(FleetError, match=r"model has the digest .*, not abab") as caught:
        await check(place, HEX)

    assert caught.value.reason is Reason.MODEL_FILE_BAD
