"""docs/engines.md says what the record says, and the record names tests that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.contract.engine.page import CAPABILITIES, page
from tests.contract.engine.recording import RECORD

ROOT = Path(__file__).parents[3]
RENEW = "run scripts/engines-page"


def test_the_page_is_made_of_the_record():
    record = json.loads(RECORD.read_text())

    assert (ROOT / "docs" / "engines.md").read_text() == page(record), RENEW


def test_capabilities_and_record_name_tests_of_the_contract():
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", text, re.MULTILINE))
    record = json.loads(RECORD.read_text())

    named = {test for tests in CAPABILITIES.values() for test in tests}
    assert named <= there
    for subject, seen in record.items():
        assert set(seen["tests"]) <= there, f"{subject}: {RENEW}"
        assert named <= set(seen["tests"]), f"{subject}: {RENEW}"


def test_a_failure_and_a_test_that_was_not_run_are_told():
    tests = {test: "passed" for tests in CAPABILITIES.values() for test in tests}
    tests["test_a_schema_is_kept"] = "failed"
    del tests["test_two_models_run_side_by_side"]

    made = page({"x": {"what": "an engine", "tests": tests}})

    assert "| JSON Schema, JSON, regex, grammar | 1 of 5 failed |" in made
    assert "| several models in one process, loaded and unloaded | 2 of 3 run |" in made
