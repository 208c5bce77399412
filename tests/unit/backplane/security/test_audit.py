"""The audit log's file: its own, bounded, and complete lines whoever writes."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import resource
import stat

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from services.backplane.errors import Reason
from services.backplane.security.audit import AuditEntry, AuditLog, AuditSettings


def entry(number: int = 0, **more) -> AuditEntry:
    return AuditEntry(
        operation="key.create", who="key abc", target=f"name={number}", result="ok", **more
    )


def write(folder: str, start: int) -> None:
    log = AuditLog(AuditSettings(folder=folder), "gateway", CollectorRegistry())
    for number in range(start, start + 200):
        log.record(entry(number))


def lines(folder) -> list[dict[str, str]]:
    files = sorted(folder.glob("audit-gateway.jsonl*"))
    texts = [one.read_text() for one in files if not one.name.endswith(".lock")]
    return [json.loads(line) for text in texts for line in text.splitlines()]


@pytest.fixture
def counted():
    return CollectorRegistry()


def test_an_entry_is_a_line_in_a_file_that_only_its_user_reads(tmp_path, counted):
    folder = tmp_path / "new" / "audit"
    log = AuditLog(AuditSettings(folder=str(folder)), "gateway", counted)

    log.record(entry(7, principal="ann", source="192.0.2.1", request_id="req_1"))

    (line,) = lines(folder)
    assert line.pop("at").endswith("Z")
    assert {
        "service": "gateway",
        "operation": "key.create",
        "who": "key abc",
        "principal": "ann",
        "source": "192.0.2.1",
        "target": "name=7",
        "request_id": "req_1",
        "result": "ok",
    } == line
    assert 0o600 == stat.S_IMODE((folder / "audit-gateway.jsonl").stat().st_mode)
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    labels = {"operation": "key.create", "result": "ok"}
    assert 1 == counted.get_sample_value("cortex_gateway_operations_total", labels)


def test_files_are_bounded_in_size_and_number(tmp_path, counted):
    log = AuditLog(AuditSettings(folder=str(tmp_path), max_bytes=1000, kept=3), "gateway", counted)
    for number in range(100):
        log.record(entry(number))

    files = [one for one in tmp_path.iterdir() if one.suffix != ".lock"]
    assert 4 == len(files)
    assert all(one.stat().st_size <= 1000 for one in files)
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in files)
    newest = json.loads((tmp_path / "audit-gateway.jsonl").read_text().splitlines()[-1])
    assert "name=99" == newest["target"]


def test_several_processes_write_whole_lines(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=write, args=(str(tmp_path), n * 1000)) for n in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)

    assert 600 == len({line["target"] for line in lines(tmp_path)})


def test_a_file_that_cannot_be_written_is_told_and_the_log_has_the_entry(tmp_path, counted):
    (tmp_path / "file").write_text("")
    log = AuditLog(AuditSettings(folder=str(tmp_path / "file")), "gateway", counted)

    with capture_logs() as said:
        log.record(entry(1))

    assert ["audit.recorded", "audit.unwritten"] == [one["event"] for one in said]
    assert 1 == counted.get_sample_value("cortex_gateway_audit_unwritten_total")


def test_what_callers_send_is_cut(tmp_path, counted):
    log = AuditLog(AuditSettings(folder=str(tmp_path)), "gateway", counted)

    log.record(AuditEntry(operation="key.show", who="x", target="y" * 10_000))

    assert len(lines(tmp_path)[0]["target"]) < 1000


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_lies_in_the_place_of_the_file_is_not_written(tmp_path, counted, kind):
    folder, elsewhere = tmp_path / "audit", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_text("")
    if kind == "link":
        (folder / "audit-gateway.jsonl").symlink_to(elsewhere)
    else:
        os.mkfifo(folder / "audit-gateway.jsonl")
    log = AuditLog(AuditSettings(folder=str(folder)), "gateway", counted)

    log.record(entry())

    assert 1 == counted.get_sample_value("cortex_gateway_audit_unwritten_total")
    assert "" == elsewhere.read_text()


def test_a_full_disk_leaves_no_half_lines(tmp_path, counted):
    folder = tmp_path / "audit"
    log = AuditLog(AuditSettings(folder=str(folder)), "gateway", counted)
    log.record(entry(1))
    size = (folder / "audit-gateway.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
    try:
        with capture_logs():  # whose file would have no room either
            log.record(entry(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.record(entry(3))

    assert ["name=1", "name=3"] == [line["target"] for line in lines(folder)]
    assert 1 == counted.get_sample_value("cortex_gateway_audit_unwritten_total")


def test_a_process_that_is_frozen_with_the_lock_holds_nobody_up(tmp_path, counted):
    log = AuditLog(AuditSettings(folder=str(tmp_path)), "gateway", counted)
    with (tmp_path / "audit-gateway.jsonl.lock").open("w") as frozen:
        fcntl.flock(frozen, fcntl.LOCK_EX)

        log.record(entry())

    assert 1 == counted.get_sample_value("cortex_gateway_audit_unwritten_total")


def test_who_may_not_turns_over_nothing_that_others_did(tmp_path, counted):
    log = AuditLog(AuditSettings(folder=str(tmp_path)), "gateway", counted)
    log.record(entry(1))
    refused = msgspec.structs.replace(entry(), result=Reason.FORBIDDEN.value)

    with capture_logs() as logged:
        for _ in range(500):
            log.record(refused)
    log.record(entry(2))

    told = lines(tmp_path)
    assert 500 == len([one for one in logged if one["event"] == "audit.recorded"])
    assert {"name=1", "name=2"} <= {one["target"] for one in told}
    assert 60 <= len(told) < 100
