import fcntl
import os
import platform
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.neuron.engines.exllamav2.library import build, build_command, probe
from services.neuron.engines.exllamav2.library.build import BuildFailedError, BuildKey

KEY = BuildKey("0.3.2", "2.11.0+cu130", "13.0", "3.12.4", "9.0")


def test_the_cache_is_keyed_by_versions_and_archs(tmp_path: Path) -> None:
    name = "0.3.2-torch2.11.0+cu130-cu13.0-cp312-sm90"

    assert KEY.file(tmp_path) == tmp_path / name / "exllamav2_ext.so"


def test_the_cache_lies_below_the_users() -> None:
    assert build.cache_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/cortex/exllamav2")
    assert build.cache_folder({}) == Path.home() / ".cache/cortex/exllamav2"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A machine with a toolkit, a compiler, and an interpreter that does what a test says."""
    tools = tmp_path / "tools"
    for file in ("cuda/bin/nvcc", "cuda/include/cuda_runtime.h", "bin/c++", "bin/ninja"):
        path = tools / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CUDA_HOME", str(tools / "cuda"))
    monkeypatch.setenv("PATH", f"{tools / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("CPATH", raising=False)

    def compiles_by(script: str) -> Path:
        interpreter = tools / "bin" / "python"
        interpreter.write_text(f"#!/bin/sh\n{script}\n")
        interpreter.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(interpreter))
        return tmp_path / "cache"

    return compiles_by


def test_a_build_is_kept_and_not_repeated(machine: Callable[[str], Path]) -> None:
    cache = machine(
        'mkdir -p "$TORCH_EXTENSIONS_DIR/exllamav2_ext"\n'
        'echo "$TORCH_CUDA_ARCH_LIST $MAX_JOBS" > "$TORCH_EXTENSIONS_DIR/exllamav2_ext/'
        'exllamav2_ext.so"'
    )

    file = build.build(KEY, cache=cache, jobs=3)
    machine("exit 1")

    assert file.read_text() == "9.0 3\n"
    assert build.build(KEY, cache=cache) == file
    assert not list(file.parent.glob("build-*"))


def test_a_failed_build_shows_the_end_of_its_log(machine: Callable[[str], Path]) -> None:
    cache = machine("echo 'error: no such intrinsic' >&2; exit 1")

    with pytest.raises(BuildFailedError, match="no such intrinsic"):
        build.build(KEY, cache=cache)

    assert "intrinsic" in (KEY.file(cache).parent / "build.log").read_text()


def test_a_build_that_leaves_nothing_has_failed(machine: Callable[[str], Path]) -> None:
    cache = machine("exit 0")

    with pytest.raises(BuildFailedError, match=r"failed \(0\)"):
        build.build(KEY, cache=cache)


def test_a_build_that_takes_too_long_is_ended_with_its_children(
    machine: Callable[[str], Path], tmp_path: Path
) -> None:
    # In a group of its own, as ninja starts compilers.
    job = f"set -m; sleep 1000 & echo $! > {tmp_path}/child; wait"
    cache = machine(f"exec bash -c '{job}'")

    with pytest.raises(BuildFailedError, match="too long"):
        build.build(KEY, cache=cache, limit_seconds=1.0)

    child = int((tmp_path / "child").read_text())
    with pytest.raises(ProcessLookupError):
        _wait_for_end(child)


def _wait_for_end(pid: int) -> None:
    for _ in range(10_000):
        os.kill(pid, 0)
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            raise ProcessLookupError


def test_two_builds_of_one_key_do_not_meet(machine: Callable[[str], Path]) -> None:
    cache = machine("exit 1")
    folder = KEY.file(cache).parent
    folder.mkdir(parents=True)

    with (folder / "build.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BuildFailedError, match="Another build"):
            build.build(KEY, cache=cache, limit_seconds=0.3)


@pytest.mark.parametrize("tool", ["c++", "ninja"])
def test_a_missing_tool_is_named(
    tool: str, machine: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = machine("exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "tools/bin"))
    (tmp_path / "tools/bin" / tool).unlink()

    with pytest.raises(BuildFailedError, match=tool.replace("+", r"\+")):
        build.build(KEY, cache=cache)


def test_a_missing_toolkit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Half a toolkit, as a wrapper of nvcc on PATH leaves it.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvcc").touch()
    monkeypatch.setattr(build, "_toolkit_candidates", lambda _: iter([tmp_path]))

    with pytest.raises(BuildFailedError, match="CUDA_HOME"):
        build.cuda_home({})


def test_the_given_toolkit_comes_first(machine: Callable[[str], Path], tmp_path: Path) -> None:
    machine("exit 0")

    assert build.cuda_home() == tmp_path / "tools/cuda"


def report(**answer: object) -> probe.Report:
    whole = {"torch": "2.11.0", "cuda": "13.0", "devices": ["H100"], "capabilities": [[9, 0]]}
    return probe.judge({**whole, **answer}, Path("/nowhere"))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"cuda": None}, "build without CUDA"),
        ({"devices": []}, "No CUDA device is visible."),
        (
            {},
            "not built for torch 2.11.0 on sm 9.0 (H100): run `cortex neuron build-engine exllamav2`",
        ),
    ],
)
def test_the_probe_says_what_is_missing(
    answer: dict[str, object], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # no ready-made extension

    made = report(**answer)

    assert not made.available
    assert told in made.reason


def test_the_probe_finds_the_built_extension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.12.4")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # no ready-made extension
    file = KEY.file(tmp_path)
    file.parent.mkdir(parents=True)
    file.touch()
    answer = {
        "torch": "2.11.0+cu130", "cuda": "13.0", "devices": ["H100"], "capabilities": [[9, 0]],
    }  # fmt: skip

    made = probe.judge(answer, tmp_path)

    assert made.available
    assert made.reason == "ExLlamaV2 0.3.2 on H100, torch 2.11.0+cu130."
    assert made.facts["extension"] == str(file)


def built(cache: Path, archs: str, torch: str = "2.11.0") -> Path:
    """An extension that an image or a host has built."""
    file = BuildKey("0.3.2", torch, "13.0", platform.python_version(), archs).file(cache)
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_a_build_for_several_architectures_serves_each_of_them(tmp_path: Path) -> None:
    key = BuildKey("0.3.2", "2.11.0", "13.0", platform.python_version(), "9.0")
    built(tmp_path, "8.0;9.0", torch="2.10.0")  # of another torch
    built(tmp_path, "8.0")
    assert build.find(key, tmp_path, [(9, 0)]) is None

    shared = built(tmp_path, "8.6;9.0+PTX")
    assert build.find(key, tmp_path, [(9, 0)]) == shared

    own = built(tmp_path, "9.0")
    assert build.find(key, tmp_path, [(9, 0)]) == own


MIXED = {
    "torch": "2.11.0", "cuda": "13.0",
    "devices": ["H100", "RTX 3090"], "capabilities": [[9, 0], [8, 6]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("archs", "is_available", "said"),
    [
        (["8.6;9.0"], True, "ExLlamaV2 0.3.2 on H100, RTX 3090, torch 2.11.0."),
        (["8.6", "9.0"], True, "none may share a model"),
        (["9.0"], True, "on H100 alone. The extension is not built for torch 2.11.0 on sm 8.6"),
        ([], False, "not built for torch 2.11.0 on sm 9.0 (H100), 8.6 (RTX 3090): run"),
    ],
)
def test_the_doctor_says_what_each_worker_would_see(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    archs: list[str],
    is_available: bool,
    said: str,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for one in archs:
        built(tmp_path, one)

    report = probe.judge(MIXED, tmp_path)

    assert report.available is is_available
    assert said in report.reason


ANSWER = {"torch": "2.11.0", "cuda": "13.0", "devices": ["H100"], "capabilities": [[9, 0]]}


@pytest.fixture
def torch_says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine whose packages are there and whose torch answers as a test says."""
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)

    def answer(**changes: object) -> None:
        monkeypatch.setattr(probe, "_missing_package", lambda: None)
        monkeypatch.setattr(probe, "_ask_torch", lambda _: {**ANSWER, **changes})

    return answer


def test_the_command_builds_and_tells_where(
    machine: Callable[[str], Path],
    torch_says: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = machine('touch "$TORCH_EXTENSIONS_DIR/exllamav2_ext.so"')
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    torch_says()

    assert build_command.main([]) == 0

    out, err = capsys.readouterr()
    assert Path(out.strip()).is_file()
    assert "build.log" in err


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"cuda": None}, "without CUDA"), ({"devices": [], "capabilities": []}, "ARCH_LIST")],
)
def test_the_command_says_why_it_cannot(
    torch_says: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    told: str,
) -> None:
    torch_says(**changes)

    assert build_command.main([]) == 1
    assert told in capsys.readouterr().err


def test_an_image_names_what_to_build_for(
    torch_says: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_says(devices=[], capabilities=[])
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6;9.0")

    assert probe.build_key().archs == "8.6;9.0"


def test_a_missing_package_ends_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_missing_package", lambda: "torch is not installed")

    with pytest.raises(BuildFailedError, match="torch is not installed"):
        probe.build_key()
