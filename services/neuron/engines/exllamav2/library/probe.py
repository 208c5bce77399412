"""Says whether ExLlamaV2 can run here, in one sentence, without importing torch into the caller.

torch takes seconds to import, opens the device and, in a bad installation, kills the process: so it
is asked in a process of its own, with a time limit. The child imports torch and never exllamav2,
whose import would start to compile.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from services.neuron.engines.exllamav2.library import architectures, build

LIMIT_SECONDS: Final = 60.0
INSTALL: Final = "pip install 'cortex-fleet[exllamav2]'"
BUILD: Final = "cortex neuron build-engine exllamav2"
SUPPORTED: Final = "0.3.2"

_ASK_TORCH: Final = """
import json, torch
devices = range(torch.cuda.device_count()) if torch.version.cuda else range(0)
print(json.dumps({
    "torch": torch.__version__,
    "cuda": torch.version.cuda,
    "devices": [torch.cuda.get_device_name(i) for i in devices],
    "capabilities": [list(torch.cuda.get_device_capability(i)) for i in devices],
}))
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Whether the engine can run.

    Attributes:
        available: it can.
        reason: one sentence; says what is missing, or what there is.
        facts: versions and devices, as strings.
    """

    available: bool
    reason: str
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])


def check() -> None:
    """Prints the report's sentence and exits with 1 if the engine cannot run (`cortex doctor`)."""
    report = probe()
    if not report.available:
        sys.exit(report.reason)
    sys.stdout.write(report.reason + "\n")


def probe(*, limit_seconds: float = LIMIT_SECONDS) -> Report:
    """Looks at this machine.

    Args:
        limit_seconds: how long torch may take to answer.
    """
    missing = _missing_package()
    if missing is not None:
        return Report(False, missing)
    try:
        answer = _ask_torch(limit_seconds)
    except subprocess.TimeoutExpired:
        return Report(False, f"torch did not answer within {limit_seconds:.0f} s.")
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        return Report(False, f"torch is broken: {_last_words(error)}")
    return judge(answer, build.cache_folder())


def build_key() -> build.BuildKey:
    """What an extension for this machine depends on.

    Raises:
        BuildFailedError: a package or a device is missing; the message says which.
    """
    missing = _missing_package()
    if missing is not None:
        raise build.BuildFailedError(missing)
    try:
        answer = _ask_torch(LIMIT_SECONDS)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise build.BuildFailedError(f"torch is broken: {_last_words(error)}") from error
    if answer["cuda"] is None:
        raise build.BuildFailedError(f"torch {answer['torch']} is a build without CUDA.")
    # An image is built where there is no device: then the caller names what to build for.
    archs = os.environ.get("TORCH_CUDA_ARCH_LIST") or _archs(answer)
    if not archs:
        raise build.BuildFailedError("No CUDA device is visible; set TORCH_CUDA_ARCH_LIST.")
    return _key(answer, archs)


def judge(answer: Mapping[str, Any], cache: pathlib.Path) -> Report:
    """Turns torch's answer into a report.

    Args:
        answer: keys `torch`, `cuda`, `devices`, `capabilities`, as the child prints them.
        cache: where built extensions lie.
    """
    version, cuda = str(answer["torch"]), answer["cuda"]
    facts = {"torch": version, "cuda": str(cuda or ""), "exllamav2": SUPPORTED}
    if cuda is None:
        return Report(False, f"torch {version} is a build without CUDA.", facts)
    if not answer["devices"]:
        return Report(False, "No CUDA device is visible.", facts)
    names, archs = ", ".join(answer["devices"]), _archs(answer)
    facts |= {"devices": names, "arch": archs, "extension": "installed"}
    if importlib.util.find_spec(build.MODULE) is not None:
        return Report(True, f"ExLlamaV2 {SUPPORTED} on {names}, torch {version}.", facts)
    # As workers will see it: each has its own device, and those of a group all of them.
    lacking: dict[str, str] = {}
    found: list[str] = []
    for name, capability in zip(answer["devices"], _capabilities(answer), strict=True):
        own = architectures.arch_list([capability])
        file = build.find(_key(answer, own), cache, [capability])
        if file is None:
            lacking[own] = name
        else:
            found.append(str(file))
    facts["extension"] = ", ".join(dict.fromkeys(found))
    if not lacking:
        told = f"ExLlamaV2 {SUPPORTED} on {names}, torch {version}."
        if build.find(_key(answer, archs), cache, _capabilities(answer)) is None:
            told += f" No build covers all of them, so none may share a model: run `{BUILD}`."
        return Report(True, told, facts)
    missing = ", ".join(f"{own} ({name})" for own, name in lacking.items())
    told = f"The extension is not built for torch {version} on sm {missing}: run `{BUILD}`."
    if found:
        able = [name for name in answer["devices"] if name not in lacking.values()]
        told = f"ExLlamaV2 {SUPPORTED} on {', '.join(able)} alone. {told}"
    return Report(bool(found), told, facts)


def _capabilities(answer: Mapping[str, Any]) -> list[architectures.Capability]:
    return [(int(major), int(minor)) for major, minor in answer["capabilities"]]


def _archs(answer: Mapping[str, Any]) -> str:
    return architectures.arch_list(_capabilities(answer))


def _key(answer: Mapping[str, Any], archs: str) -> build.BuildKey:
    versions = (SUPPORTED, str(answer["torch"]), str(answer["cuda"]))
    return build.BuildKey(*versions, platform.python_version(), archs)


def _missing_package() -> str | None:
    for name in ("torch", "exllamav2", "tokenizers", "llguidance"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: {INSTALL}"
    version = importlib.metadata.version("exllamav2")
    if version.partition("+")[0] != SUPPORTED:
        return f"exllamav2 {version} is installed; {SUPPORTED} is needed: {INSTALL}"
    return None


def _ask_torch(limit_seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _ASK_TORCH],
        capture_output=True,
        text=True,
        timeout=limit_seconds,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return answer


def _last_words(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = str(error.stderr or "").strip().splitlines()
        return lines[-1] if lines else f"it ended with {error.returncode}."
    return str(error)
