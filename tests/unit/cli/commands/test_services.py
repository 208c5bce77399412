import pytest

from services.backplane.settings import Document, SettingsError
from services.cli.commands import services


def decide(**sections):
    return services._has_registry_inside(Document(sections, "cortex.toml"))


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"gateway": {"registry": []}},
        {"gateway": {"registry": ["127.0.0.1:31315"]}},
        {"gateway": {"registry": ["far:1", "127.0.0.1:7"]}, "registry": {"listen": "0.0.0.0:7"}},
        {"gateway": {"registry": ["cortex.lan:7"]}, "registry": {"address": "cortex.lan:7"}},
    ],
)
def test_a_registry_runs_inside_where_it_is_the_one_that_is_named(sections):
    assert decide(**sections)


def test_another_one_is_left_to_run_elsewhere():
    assert not decide(
        gateway={"registry": ["192.0.2.1:31315"]}, registry={"listen": "0.0.0.0:31315"}
    )


def test_two_ports_on_one_machine_contradict_each_other():
    with pytest.raises(
        SettingsError,
        match=r"cortex.toml: gateway.registry = '127.0.0.1:8' contradicts"
        r" cortex.toml: registry.listen = '127.0.0.1:7'",
    ):
        decide(gateway={"registry": ["127.0.0.1:8"]}, registry={"listen": "127.0.0.1:7"})
