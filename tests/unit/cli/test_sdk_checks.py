import asyncio

from services.cli.sdk_checks.suite import Suite, Target

TARGET = Target(url="http://127.0.0.1:1", model="tiny")


def test_each_check_has_its_outcome_and_none_stops_the_others():
    suite = Suite("sdk", version="1.0")

    @suite.check("stream")
    def fails(target):
        assert target.model == "other", "not that one"

    @suite.check("tools")
    async def passes_later(_):
        await asyncio.sleep(0)

    first, second = suite.run(TARGET)

    assert ("stream", "fails") == (first.aspect, first.check)
    assert "not that one" in first.why
    assert ("tools", "passes later", "") == (second.aspect, second.check, second.why)


def test_a_suite_takes_over_anothers_checks():
    other = Suite("sdk", version="1.0")
    other.check("basics")(lambda _: None)
    suite = Suite("sdk", version="2.0")
    suite.extend(other)

    assert ["2.0"] == [outcome.version for outcome in suite.run(TARGET)]


def test_a_target_is_read_from_the_environment():
    found = Target.of({"CORTEX_URL": "u", "CORTEX_MODEL": "m", "CORTEX_SCRIPTED": "s"})

    assert Target(url="u", model="m", scripted="s") == found
