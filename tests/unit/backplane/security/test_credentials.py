"""Certificates are taken in as wholes: the old ones stay until the new ones fit."""

import msgspec
import pytest
from structlog.testing import capture_logs

from services.backplane.security import credentials as module
from services.backplane.security.authority import create, issue
from services.backplane.security.credentials import FleetCredentials, own_credentials
from services.backplane.security.roles import Role
from services.backplane.security.settings import FleetSettings
from services.backplane.settings import SettingsError, load


@pytest.fixture(autouse=True)
def looks_at_every_call(monkeypatch):
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path):
    create(tmp_path / "pki")
    (tmp_path / "pki" / "revoked").touch()
    renew(tmp_path / "pki", "host")
    return tmp_path / "pki"


def renew(folder, name, days=100):
    issue(folder, [Role.GATEWAY], out=folder / name, days=days)


def read(folder):
    paths = {"ca": "ca.pem", "certificate": "host.pem", "key": "host.key", "revoked": "revoked"}
    return FleetCredentials(
        msgspec.convert({key: str(folder / to) for key, to in paths.items()}, FleetSettings)
    )


def test_a_half_renewed_pair_leaves_the_old_one_in_place(folder):
    credentials = read(folder)
    generation, context = credentials.generation, credentials.for_socket()

    renew(folder, "next")
    (folder / "next.key").replace(folder / "host.key")
    with capture_logs() as told:
        for _ in range(3):
            assert credentials.generation == generation
            assert credentials.for_socket() is context
    assert [each["event"] for each in told] == ["certificate.unusable"]

    (folder / "next.pem").replace(folder / "host.pem")
    assert credentials.generation == generation + 1
    assert credentials.for_socket() is not context


def test_a_revoked_list_is_taken_in_without_new_connections(folder):
    credentials = read(folder)
    generation = credentials.generation

    (folder / "revoked").write_text("abc\n")

    assert credentials.revoked == {"abc"}
    assert credentials.generation == generation


def test_the_end_is_told_once_a_day_and_not_at_the_start_alone(folder, monkeypatch):
    monkeypatch.setattr(module, "_WARN_DAYS", 50)
    with capture_logs() as told:
        credentials = read(folder)
        _ = credentials.generation
    assert told == []

    monkeypatch.setattr(module, "_WARN_DAYS", 200)
    with capture_logs() as told:
        for _ in range(3):
            _ = credentials.generation
    assert [(each["event"], each["days"]) for each in told] == [("certificate.ends_soon", 99)]


def test_a_key_of_another_certificate_is_named(folder):
    renew(folder, "next")
    (folder / "next.key").replace(folder / "host.key")

    with pytest.raises(SettingsError, match=r"host\.key is not the key of .*host\.pem"):
        read(folder)


def test_a_services_own_certificate_says_what_it_is(folder):
    paths = {"CA": "ca.pem", "CERTIFICATE": "host.pem", "KEY": "host.key"}
    document = load(None, {f"CORTEX_FLEET__{key}": str(folder / to) for key, to in paths.items()})

    assert own_credentials(load(None, {}), Role.NEURON, neuron="beast") is None
    assert own_credentials(document, Role.GATEWAY) is not None
    with pytest.raises(SettingsError, match=r"not for beast\.neuron"):
        own_credentials(document, Role.NEURON, neuron="beast")
