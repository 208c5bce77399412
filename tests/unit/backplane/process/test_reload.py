import pytest
import structlog

from services.backplane.logs import LogSettings
from services.backplane.process.reload import SettingsReload
from services.backplane.settings import SettingsError, load


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cortex.toml"
    path.write_text('[log]\nlevel = "info"\n[gateway]\nlisten = "a:1"\n')
    return path


@pytest.fixture
def taken():
    return []


@pytest.fixture
def reload(file, taken):
    return SettingsReload(
        load(file, {}).with_values({"gateway.registry": ["inside:1"]}),
        sections=("log", "gateway", "neurons"),
        check=lambda document: document.section("log", LogSettings),
        live={"log": lambda document: taken.append(document.tables["log"])},
    )


def told(reload):
    with structlog.testing.capture_logs() as lines:
        reload()
    return lines


def test_what_is_as_it_was_is_left_alone(reload, taken):
    (line,) = told(reload)

    assert (line["event"], line["changed"], line["needs_restart"]) == ("settings.reloaded", [], [])
    assert taken == []


def test_changes_are_taken_in_once_and_the_rest_is_named_until_a_restart(reload, file, taken):
    file.write_text(
        '[log]\nlevel = "debug"\n[gateway]\nlisten = "b:1"\n[[neurons]]\nendpoint = "n:1"\n'
    )

    (first,) = told(reload)
    (second,) = told(reload)

    assert first["changed"] == ["log.level"]
    assert first["needs_restart"] == ["gateway.listen", "neurons"]
    assert second["changed"] == []
    assert second["needs_restart"] == ["gateway.listen", "neurons"]
    assert taken == [{"level": "debug"}]


@pytest.mark.parametrize("text", ["[log]\nlevel = 1", "[log", "[lgo]"])
def test_a_mistake_changes_nothing(reload, file, taken, text):
    file.write_text(text)

    (line,) = told(reload)

    assert line["event"] == "settings.refused"
    assert "Nothing was changed" in line["detail"]
    assert taken == []


def test_other_files_are_read_though_no_setting_has_changed(file):
    def refuse():
        raise SettingsError("models.toml: no")

    reload = SettingsReload(
        load(file, {}), sections=("log",), check=lambda _: None, live={}, always=(refuse,)
    )

    assert [line["event"] for line in told(reload)] == ["settings.refused", "settings.reloaded"]
