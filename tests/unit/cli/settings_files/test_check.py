import pytest

from services.backplane.settings import load
from services.cli.settings_files.check import (
    problem_of_agent,
    problem_of_catalogue,
    problems,
    services_of,
)
from services.cli.settings_files.sections import Service


def document(tmp_path, text, environment=None):
    path = tmp_path / "cortex.toml"
    path.write_text(text)
    return load(path, environment or {})


@pytest.mark.parametrize(
    ("text", "services"),
    [
        ("", set(Service)),
        ("[log]\nlevel = 'debug'", set(Service)),
        ("[auth]", {Service.GATEWAY}),
        ("[eviction]\n[gateway]", {Service.GATEWAY, Service.REGISTRY}),
        ("[neuron]", {Service.NEURON}),
    ],
)
def test_settings_are_for_the_services_that_they_name(tmp_path, text, services):
    assert services == set(services_of(document(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "service", "words"),
    [
        ("[gateway]\nlissten = 'a:1'", Service.GATEWAY, "gateway: Object contains unknown field"),
        ("[gateway]\nlisten = '0.0.0.0:1'", Service.GATEWAY, "gateway.listen = '0.0.0.0:1'"),
        ("[registry]\nlisten = '0.0.0.0:1'", Service.REGISTRY, "registry.listen = '0.0.0.0:1'"),
        ("[registry]\nmodels = '/no/such'", Service.REGISTRY, "/no/such: cannot be read"),
        ("[neuron]\nlisten = '0.0.0.0:1'", Service.NEURON, "neuron.listen = '0.0.0.0:1'"),
        ("[fleet]\nca = '/no/such'", Service.NEURON, "fleet.ca: there is no file /no/such"),
        ("[log]\nlevel = 'loud'", Service.REGISTRY, "log.level: Invalid enum value"),
        ("[[neurons]]\nname = 'a'", Service.GATEWAY, "neurons[0]: Object missing required field"),
    ],
)
def test_what_keeps_a_service_from_starting_is_told_once(tmp_path, text, service, words):
    (problem,) = problems(document(tmp_path, text), [service])

    assert words in problem


def test_several_mistakes_are_told_together(tmp_path):
    text = "[gateway]\nlisten = '0.0.0.0:1'\n[neuron]\nlisten = '0.0.0.0:2'"

    found = problems(document(tmp_path, text), list(Service))

    assert ["gateway.listen", "neuron.listen"] == [each.split(" ")[1] for each in found]


def test_a_variable_that_is_wrong_is_named(tmp_path):
    (problem,) = problems(
        document(tmp_path, "", {"CORTEX_GATEWAY__WORKERS": "many"}), [Service.GATEWAY]
    )

    assert problem.startswith("CORTEX_GATEWAY__WORKERS: gateway.workers: ")


def test_other_files_are_checked_too(tmp_path):
    path = tmp_path / "some.toml"
    path.write_text("[[models]]\nid = 'a'\ncolour = 'red'\n")

    assert "colour" in problem_of_catalogue(path)
    assert "models" in problem_of_agent(path, {})
    path.write_text("[[models]]\nid = 'a'\n")
    assert "" == problem_of_catalogue(path)
    path.write_text("mode = 'plan'\n")
    assert "" == problem_of_agent(path, {})
