import json

from services.gateway.conformance.report import (
    Absent,
    Check,
    Client,
    ConformanceReport,
    as_markdown,
    load,
    packaged,
)

REPORT = ConformanceReport(
    cortex="1.2.3",
    commit="abc",
    date="2026-01-02",
    model="tiny",
    clients=(
        Client(
            "sdk",
            "3.4",
            (
                Check("stream", "chunks"),
                Check("stream", "helper", "It broke."),
                Check("tools", "any"),
            ),
            (Absent("cancel", "it cannot be interrupted"),),
        ),
    ),
)


def test_the_packaged_report_is_whole_and_of_real_clients():
    report = load()

    assert json.loads(packaged())["cortex"] == report.cortex
    assert {"openai (Python)", "anthropic (Python)", "Claude Code", "Codex"} <= {
        client.client for client in report.clients
    }


def test_a_tally_counts_an_aspect():
    client = REPORT.clients[0]

    assert ((1, 2), (1, 1), (0, 0)) == tuple(
        client.tally(aspect) for aspect in ("stream", "tools", "errors")
    )


def test_the_table_has_a_row_per_client_and_names_failures():
    text = as_markdown(REPORT)

    assert "| sdk | 3.4 | – | 1/2 | 1/1 | – | – | n/a |" in text
    assert "- sdk, cancel: n/a, it cannot be interrupted" in text
    assert "- sdk, stream, helper: It broke." in text
