"""What this machine is."""

from __future__ import annotations

import platform
import shutil
import subprocess

from gpu.bench_setting import EMULATED, keep
from services.neuron.engines.exllamav2.library.probe import probe


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[-1] if lines else f"ended with {done.returncode}"


def main() -> None:
    """Keeps versions and devices."""
    report = probe()
    keep(
        "environment",
        {
            "emulated": EMULATED,
            "python": platform.python_version(),
            "gpu": _said(
                "nvidia-smi",
                "--query-gpu=name,memory.total,driver_version",
                "--format=csv,noheader",
            ),
            "nvcc": _said("nvcc", "--version"),
            "compiler": _said("c++", "-dumpfullversion"),
            "probe": report.reason,
            **report.facts,
        },
    )


if __name__ == "__main__":
    main()
