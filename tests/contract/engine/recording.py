"""What the contract's tests saw of each engine, kept in a file for `docs/engines.md`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

RECORD: Final = Path(__file__).parents[3] / "docs" / "recordings" / "engines.json"
# Where a run writes what it sees; unset writes nothing.
VARIABLE: Final = "CORTEX_RECORD_ENGINES"
_TEST: Final = re.compile(r"tests/contract/engine/\w+\.py::(?P<test>\w+)\[(?P<subject>[^\]]+)\]")

Seen = dict[str, dict[str, str]]


class Recorder:
    """Collects outcomes by subject and test; of several cases of a test the worst counts."""

    def __init__(self, subjects: Mapping[str, str]) -> None:
        """Has seen nothing yet.

        Args:
            subjects: what each subject is, by its name.
        """
        self._subjects = subjects
        self._seen: Seen = {}

    def note(self, report: pytest.TestReport) -> None:
        """Takes in how a test ended."""
        found = _TEST.match(report.nodeid)
        if found is None or (report.when != "call" and report.passed) or report.skipped:
            return
        # pytest joins the subject and the case in either order
        parts = found["subject"]
        named = [name for name in self._subjects if re.search(rf"(^|-){name}(-|$)", parts)]
        subject = max(named, key=len)
        tests = self._seen.setdefault(subject, {})
        if tests.get(found["test"]) != "failed":
            tests[found["test"]] = "passed" if report.passed else "failed"

    def write(self, path: Path) -> None:
        """Puts what was seen into a record, in place of what that says of the same tests."""
        record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        for subject, tests in self._seen.items():
            before = record.get(subject, {}).get("tests", {})
            record[subject] = {
                "what": self._subjects[subject],
                "tests": dict(sorted((before | tests).items())),
            }
        path.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")


def recorder_of(subjects: Mapping[str, str]) -> Recorder | None:
    """The recorder of this run; None where nobody asked for one."""
    return Recorder(subjects) if os.environ.get(VARIABLE) else None
