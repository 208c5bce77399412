"""Who a certificate says its holder is, and what each role may call."""

import importlib
import pkgutil

import pytest

import cortex.v1
from services.backplane.errors import FleetError, Reason
from services.backplane.security.roles import Role, names_of, peer_of, require_role
from services.neuron.access import METHODS as NEURON_METHODS
from services.registry.api.access import METHODS as REGISTRY_METHODS

ALLOWED = {"/s.S/Do": frozenset({Role.GATEWAY, Role.OPERATOR})}


def test_names_of_a_role_are_read_back_as_that_role():
    for role in Role:
        peer = peer_of(names_of(role, neuron="beast" if role is Role.NEURON else ""))

        assert peer.roles == {role}
        assert peer.neurons == ({"beast"} if role is Role.NEURON else frozenset())


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 200, ".a", "a,b", "*", "Beast"])
def test_a_name_that_cannot_stand_in_a_certificate_is_refused(name):
    with pytest.raises(ValueError, match="cannot stand in a certificate"):
        names_of(Role.NEURON, neuron=name)


@pytest.mark.parametrize("name", ["example.com", "gateway.cortex.internal.evil.com", "gateway"])
def test_foreign_names_say_nothing(name):
    assert peer_of([name]).roles == frozenset()


def test_a_neuron_speaks_for_its_own_name_alone():
    peer = peer_of(names_of(Role.NEURON, neuron="beast"))

    peer.require_neuron("beast")
    for other in ("other", "BEAST", "beast.", "x.beast", "beast "):
        with pytest.raises(FleetError) as caught:
            peer.require_neuron(other)
        assert (caught.value.reason, caught.value.field) == (Reason.FORBIDDEN, "hello.name")


def test_a_method_is_for_its_roles():
    require_role(peer_of(names_of(Role.GATEWAY)), "/s.S/Do", ALLOWED, open_to_all=())
    with pytest.raises(FleetError, match="Do is for gateway or operator"):
        require_role(peer_of(names_of(Role.REGISTRY)), "/s.S/Do", ALLOWED, open_to_all=())


def test_a_method_that_nobody_listed_is_nobodys():
    with pytest.raises(FleetError, match="nobody"):
        require_role(peer_of(names_of(Role.OPERATOR)), "/s.S/New", ALLOWED, open_to_all=("/h/",))


def test_every_method_of_the_contract_has_its_roles_but_those_of_strangers_who_join():
    names = {each.name for each in pkgutil.iter_modules(cortex.v1.__path__)}
    services = {name for name in names if name.endswith("_service_pb2")} - {"join_service_pb2"}
    files = [importlib.import_module(f"cortex.v1.{name}") for name in services]
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }

    assert methods == {*NEURON_METHODS, *REGISTRY_METHODS}
