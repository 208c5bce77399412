import structlog

from services.registry.store.health import StoreHealth


def test_each_change_is_one_line():
    health = StoreHealth()

    with structlog.testing.capture_logs() as lines:
        health.worked()
        for _ in range(3):
            health.failed("no route", pending=2)
        health.worked()
        health.worked()
        health.failed("again")

    assert [line["event"] for line in lines] == ["store.failed", "store.recovered", "store.failed"]
    assert lines[0]["detail"] == "no route"
    assert lines[0]["pending"] == 2
