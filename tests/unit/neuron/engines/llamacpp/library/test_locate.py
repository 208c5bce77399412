from pathlib import Path

import pytest

from services.neuron.engines.llamacpp.library import locate as module
from services.neuron.engines.llamacpp.library.locate import locate


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own"
    monkeypatch.setattr(module, "OWN_FOLDER", str(folder))
    return folder


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path.resolve()


@pytest.mark.parametrize(
    "inside",
    [
        "libllama.so",
        "build/bin/libllama.so",
        "lib/libllama.so.0",
        "libllama.vulkan.v0.5.0.so",
        "xllamacpp/xllamacpp.abi3.so",
    ],
)
def test_the_folder_of_a_build_or_of_a_wheel_is_enough(tmp_path: Path, inside: str) -> None:
    library = made(tmp_path / "build" / inside)

    assert locate(str(tmp_path / "build")).path == library


def test_a_library_can_be_named_itself(tmp_path: Path) -> None:
    library = made(tmp_path / "anything.so")

    assert locate(str(library)).path == library


def test_a_folder_without_a_library_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "libllama-common.so")

    with pytest.raises(ImportError, match=r"library is .*: there is no libllama"):
        locate(str(tmp_path))


def test_a_build_in_its_own_folder_goes_before_the_wheel(own_folder: Path) -> None:
    wheel = locate("")
    library = made(own_folder / "bin" / "libllama.so")

    assert wheel.path.parent.name == "xllamacpp"
    assert locate("").path == library


def test_a_user_without_a_home_has_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that runs under a number that nobody has, without HOME."""
    monkeypatch.setattr(module, "OWN_FOLDER", "~nobody-of-this-name/llama.cpp")

    assert "xllamacpp" in locate("").origin


def test_a_folder_of_nobody_s_home_is_named() -> None:
    with pytest.raises(ImportError, match="there is no libllama"):
        locate("~nobody-of-this-name/llama.cpp")
