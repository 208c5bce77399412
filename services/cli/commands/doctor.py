"""`cortex doctor`: what this machine has and lacks, a sentence each."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

import typer
from rich.text import Text

from services.cli.options import DEFAULT_GATEWAY, GatewayOption
from services.cli.sse import GatewayClient
from services.cli.tables import table_of
from services.cli.terminal import show
from services.neuron.devices import ggml

_PROBE_SECONDS: Final = 90.0
_OK: Final = 200
_GIB: Final = 1 << 30
_VENDORS: Final = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_BACKENDS: Final = {
    "NVIDIA": "CUDA or Vulkan",
    "AMD": "ROCm or Vulkan",
    "Intel": "Vulkan or SYCL",
}


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        what: its name.
        ok: True: fine; False: broken; None: absent, which is fine where it is not wanted.
        words: a sentence.
    """

    what: str
    ok: bool | None
    words: str


def doctor(gateway: GatewayOption = DEFAULT_GATEWAY) -> None:
    """Say what this machine can run and what is missing; exit code 1 where something is broken."""
    table = table_of("what", "", "finding")
    broken = False
    here = (_python, _gateway_stack, _llamacpp, _exllamav2, _hub, _devices, _disk)
    for finding in (*(each for look in here for each in look()), _gateway(gateway)):
        table.add_row(finding.what, _mark(finding.ok), finding.words)
        broken = broken or finding.ok is False
    show(table)
    if broken:
        raise typer.Exit(1)


def _mark(ok: bool | None) -> Text:
    words, style = {True: ("ok", "green"), False: ("broken", "red"), None: ("absent", "dim")}[ok]
    return Text(words, style=style)


def _python() -> Iterator[Finding]:
    yield Finding("python", True, f"{platform.python_version()} on {platform.platform()}")
    from google.protobuf.internal import api_implementation

    kind = api_implementation.Type()
    words = "its fast C implementation" if kind == "upb" else f"the {kind} one, 10 times slower"
    yield Finding("protobuf", kind == "upb", f"runs {words}")


def _gateway_stack() -> Iterator[Finding]:
    missing = [
        name
        for name in ("starlette", "hypercorn", "httptools", "httpx2", "uvloop")
        if importlib.util.find_spec(name) is None
    ]
    words = "can run here"
    if missing:
        words = f"lacks {', '.join(missing)}: pip install 'cortex-fleet[gateway]'"
    yield Finding("gateway", None if missing else True, words)


def _llamacpp() -> Iterator[Finding]:
    chosen = os.environ.get(ggml.LIBRARY_VARIABLE, "")
    if importlib.util.find_spec("xllamacpp") is None and not chosen:
        yield Finding("llamacpp", None, "not installed: pip install 'cortex-fleet[llamacpp]'")
        return
    yield from llamacpp_findings(ggml.ask(chosen, even_without_cards=True), cards())


def llamacpp_findings(listing: ggml.GgmlListing, makers: Collection[str]) -> Iterator[Finding]:
    """What llama.cpp's library says, and what the cards here lack.

    Args:
        listing: of the library that would be used.
        makers: of the graphics cards that are here, as `_BACKENDS` has them.
    """
    if listing.problem:
        yield Finding("llamacpp", False, listing.problem)
        return
    backends = ", ".join(dict.fromkeys(device.backend for device in listing.devices))
    words = f"llama.cpp {listing.version}, {listing.library}; backends: {backends}"
    yield Finding("llamacpp", True, words)
    for device in listing.gpus:
        free, total = device.memory_free_bytes / _GIB, device.memory_total_bytes / _GIB
        words = f"{device.name}, {device.description}: {free:.1f} of {total:.1f} GiB free"
        yield Finding("llamacpp gpu", True, words)
    for maker in () if listing.gpus else sorted(makers):
        words = (
            f"a card by {maker} is not used for GGUF models: unpack a build of llama.cpp"
            f" {listing.usable} for {_BACKENDS[maker]} into {ggml.OWN_FOLDER}, or name it as"
            " library in [neuron.llamacpp]"
        )
        yield Finding("llamacpp gpu", None, words)


def cards(folder: pathlib.Path = pathlib.Path("/sys/class/drm")) -> set[str]:
    """Makers of the graphics cards of this host for which llama.cpp has a backend."""
    found = set[str]()
    for path in folder.glob("card*/device/vendor"):
        with contextlib.suppress(OSError):
            found.add(_VENDORS.get(path.read_text(encoding="ascii").strip(), ""))
    if pathlib.Path("/dev/nvidiactl").exists():  # a container may show no more of it
        found.add("NVIDIA")
    return found - {""}


def _exllamav2() -> Iterator[Finding]:
    yield _engine("exllamav2", "exllamav2")


def _hub() -> Iterator[Finding]:
    is_here = importlib.util.find_spec("huggingface_hub") is not None
    words = "can fetch models" if is_here else "not installed: pip install 'cortex-fleet[hf]'"
    yield Finding("hf: sources", is_here or None, words)


def _engine(name: str, package: str) -> Finding:
    """Tries an engine in a process of its own; see `engine_checks`."""
    if importlib.util.find_spec(package) is None:
        return Finding(name, None, f"not installed: pip install 'cortex-fleet[{name}]'")
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"from services.cli.engine_checks import {name}; {name}()"],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(name, False, f"did not answer within {_PROBE_SECONDS:.0f} s")
    if done.returncode == 0:
        return Finding(name, True, done.stdout.strip() or "can run here")
    said = (done.stderr or done.stdout).strip().splitlines() or ["it died without a word"]
    return Finding(name, False, said[-1])


def _devices() -> Iterator[Finding]:
    if importlib.util.find_spec("pynvml") is None:
        yield Finding("gpu", None, "nvidia-ml-py is not installed: no GPU can be seen")
        return
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield Finding("gpu", None, f"none: {error}")
        return
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            free, total = int(memory.free) / _GIB, int(memory.total) / _GIB
            name = pynvml.nvmlDeviceGetName(handle)
            yield Finding("gpu", True, f"{name}: {free:.1f} of {total:.1f} GiB free")
    finally:
        pynvml.nvmlShutdown()


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(".").free / _GIB
    yield Finding("disk", free > 1, f"{free:.0f} GiB free here")


def _gateway(url: str) -> Finding:
    try:
        status, _ = GatewayClient(url).get("/readyz", timeout=2)
    except OSError as error:
        return Finding("fleet", None, f"nobody answers at {url}: {error}")
    words = "is ready" if status == _OK else f"is not ready (HTTP {status})"
    return Finding("fleet", status == _OK, f"the gateway at {url} {words}")
