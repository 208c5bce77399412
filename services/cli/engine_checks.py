"""Tries an engine and says a sentence; the doctor runs each in a process of its own.

A library that breaks must not break the doctor, and some open the device when they are imported.
"""

from __future__ import annotations

import os
import pathlib
import sys


def exllamav2() -> None:
    """Says what it would run on; exits with a sentence about what is missing."""
    from services.neuron.engines.exllamav2.library import build, probe

    report = probe.probe()
    if report.available:
        sys.stdout.write(f"{report.reason}\n")
        return
    words = report.reason
    if "extension" in report.facts:  # that it is not built is all that is missing so far
        folder = pathlib.Path(report.facts["extension"]).parent
        key = build.BuildKey(
            probe.SUPPORTED,
            report.facts["torch"],
            report.facts["cuda"],
            "",  # not asked by what is called here
            report.facts["arch"],
        )
        try:
            build.compile_environment(key, folder, 1, os.environ)
        except build.BuildFailedError as error:
            words = f"{words} That would fail now: {error}"
    sys.exit(words)
