"""Compiles ExLlamaV2's extension once, into a cache that workers only read.

Left alone, the library compiles inside `import`, silently, for minutes, behind a lock without a
time limit: a build that was killed midway hangs every later import. So the build is an operator's
command, with a log, a limit and a lock that dies with its holder; a worker never compiles.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import glob
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final

import psutil

from services.neuron.engines.exllamav2.library import architectures

MODULE: Final = "exllamav2_ext"
LIMIT_SECONDS: Final = 3600.0
_TAIL_LINES: Final = 15
_DEAD: Final = psutil.STATUS_ZOMBIE
_COMPILE: Final = """
from torch.utils import cpp_extension
load = cpp_extension.load
# Every command goes into the log as it runs; the library would keep them to itself.
cpp_extension.load = lambda *given, **named: load(*given, **{**named, "verbose": True})
import exllamav2.ext
"""


class BuildFailedError(Exception):
    """The extension could not be built; the message says why and where the log is."""


@dataclasses.dataclass(frozen=True, slots=True)
class BuildKey:
    """What a built extension depends on.

    Attributes:
        exllamav2, torch, cuda, python: versions.
        archs: compute capabilities, as TORCH_CUDA_ARCH_LIST takes them.
    """

    exllamav2: str
    torch: str
    cuda: str
    python: str
    archs: str

    @property
    def name(self) -> str:
        """The folder's name in the cache."""
        return self.versions + architectures.folder_part(self.archs)

    @property
    def versions(self) -> str:
        """How the names of all folders of these versions begin."""
        python = "".join(self.python.split(".")[:2])
        return f"{self.exllamav2}-torch{self.torch}-cu{self.cuda}-cp{python}-sm"

    def file(self, cache: pathlib.Path) -> pathlib.Path:
        """Where the extension lies in a cache."""
        return cache / self.name / f"{MODULE}.so"


def cache_folder(environment: Mapping[str, str] = os.environ) -> pathlib.Path:
    """Where built extensions lie: below XDG_CACHE_HOME, else ~/.cache."""
    base = environment.get("XDG_CACHE_HOME") or str(pathlib.Path.home() / ".cache")
    return pathlib.Path(base) / "cortex" / "exllamav2"


def find(
    key: BuildKey, cache: pathlib.Path, capabilities: Sequence[architectures.Capability]
) -> pathlib.Path | None:
    """An extension that runs on devices of these capabilities, or None.

    The one of this very key, else any of the same versions whose architectures cover the devices: a
    host with mixed cards builds for all of them, an image for those that it may meet.

    Args:
        key: of the devices' own architectures.
        cache: where built extensions lie.
        capabilities: of the devices.
    """
    if key.file(cache).is_file():
        return key.file(cache)
    for folder in sorted(cache.glob(f"{glob.escape(key.versions)}*")):
        file = folder / f"{MODULE}.so"
        built = folder.name.removeprefix(key.versions)
        if file.is_file() and architectures.covers(built, capabilities):
            return file
    return None


def build(
    key: BuildKey,
    *,
    cache: pathlib.Path,
    limit_seconds: float = LIMIT_SECONDS,
    jobs: int | None = None,
) -> pathlib.Path:
    """Builds the extension unless it is there, and returns its file.

    Waits for a build of the same key by another process, within the same limit.

    Args:
        key: what to build for.
        cache: where to put it.
        limit_seconds: for waiting and compiling together.
        jobs: compilers at a time; None is one per two CPUs.

    Raises:
        BuildFailedError: no compiler, the compiler failed, or the time ran out.
    """
    deadline = time.monotonic() + limit_seconds
    target = key.file(cache)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / "build.lock", deadline):
        if not target.is_file():
            _compile(key, target, deadline, jobs or max(1, (os.cpu_count() or 2) // 2))
    return target


def cuda_home(environment: Mapping[str, str] = os.environ) -> pathlib.Path:
    """The toolkit: a folder with `bin/nvcc` and `include/cuda_runtime.h`.

    A wrapper on PATH misleads torch's own search, so the headers must be there too.

    Raises:
        BuildFailedError: there is none.
    """
    for candidate in _toolkit_candidates(environment):
        if (candidate / "bin/nvcc").is_file() and (candidate / "include/cuda_runtime.h").is_file():
            return candidate
    raise BuildFailedError(
        "No CUDA toolkit (a folder with bin/nvcc and include/cuda_runtime.h): install one of"
        " torch's CUDA version and set CUDA_HOME."
    )


def _toolkit_candidates(environment: Mapping[str, str]) -> Iterator[pathlib.Path]:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if environment.get(variable):
            yield pathlib.Path(environment[variable])
    nvcc = shutil.which("nvcc", path=environment.get("PATH"))
    if nvcc is not None:
        yield pathlib.Path(nvcc).resolve().parent.parent
    yield from sorted(pathlib.Path("/usr/local").glob("cuda*"), reverse=True)
    yield from _pip_toolkits()


def _pip_toolkits() -> Iterator[pathlib.Path]:
    """`nvidia/cu13` and its like: CUDA libraries that came as Python packages."""
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from sorted(pathlib.Path(root).glob("cu[0-9]*"), reverse=True)


def compile_environment(
    key: BuildKey, folder: pathlib.Path, jobs: int, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The compiler's environment.

    Raises:
        BuildFailedError: a tool is missing; the message says which.
    """
    for tool in ("c++", "ninja"):
        if shutil.which(tool, path=_path(inherited)) is None:
            raise BuildFailedError(f"{tool} is not installed; the extension cannot be compiled.")
    # cuBLAS, cuSPARSE and cuSOLVER headers may come with torch's own libraries only.
    headers = [str(kit / "include") for kit in _pip_toolkits()]
    known = [inherited["CPATH"]] if inherited.get("CPATH") else []
    return {
        **inherited,
        "PATH": _path(inherited),
        "CUDA_HOME": str(cuda_home(inherited)),
        "CPATH": ":".join([*known, *headers]),
        "TORCH_CUDA_ARCH_LIST": key.archs,
        "TORCH_EXTENSIONS_DIR": str(folder),
        "MAX_JOBS": str(jobs),
        # The import that compiles must not stop at an attention package.
        "EXLLAMA_NO_FLASH_ATTN": "1",
        "EXLLAMA_NO_XFORMERS": "1",
    }


def _path(environment: Mapping[str, str]) -> str:
    """PATH with this interpreter's own tools first: ninja comes as a Python package."""
    own = str(pathlib.Path(sys.executable).parent)
    return f"{own}:{environment.get('PATH', os.defpath)}"


def _compile(key: BuildKey, target: pathlib.Path, deadline: float, jobs: int) -> None:
    log = target.parent / "build.log"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        environment = compile_environment(key, pathlib.Path(folder), jobs, os.environ)
        with log.open("wb") as out:
            code = _run([sys.executable, "-c", _COMPILE], environment, out.fileno(), deadline)
        if code is None:
            raise BuildFailedError(f"The build took too long and was ended; its log: {log}")
        found = sorted(pathlib.Path(folder).rglob(f"{MODULE}*.so"))
        if code != 0 or not found:
            raise BuildFailedError(f"The build failed ({code}): {_tail(log)}\nThe log: {log}")
        # Another file system could leave half a file; the same one cannot.
        found[0].replace(target)


def _run(
    command: Sequence[str], environment: Mapping[str, str], out: int, deadline: float
) -> int | None:
    """The exit code, or None where the limit ended it and everything it had started."""
    process = subprocess.Popen(
        command, env=environment, stdout=out, stderr=out, start_new_session=True
    )
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end_session(process.pid)
        process.wait()


def _end_session(session: int) -> None:
    """Kills every process of a session: ninja puts each compiler into a group of its own."""
    found = True
    while found:  # the compilers' drivers may start others meanwhile; ninja, killed, does not
        found = False
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
                if os.getsid(pid) == session and psutil.Process(pid).status() != _DEAD:
                    os.kill(pid, signal.SIGKILL)
                    found = True


def _tail(log: pathlib.Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


@contextlib.contextmanager
def _locked(file: pathlib.Path, deadline: float) -> Generator[None]:
    """Holds a lock that the kernel drops when its holder ends, however it ends."""
    with file.open("w") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BuildFailedError(f"Another build holds {file} for too long.") from None
                time.sleep(0.2)
        yield
