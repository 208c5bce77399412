"""The fleet's authority makes keys that only their owner reads, and never replaces itself."""

import stat

import pytest

from services.backplane.security.roles import Role
from services.cli.authority import AuthorityError, create, issue, revoke, show


@pytest.fixture
def folder(tmp_path):
    create(tmp_path / "pki")
    return tmp_path / "pki"


def test_keys_are_their_owners_alone(folder):
    issued = issue(folder, [Role.GATEWAY], out=folder / "gateway", days=2)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in (folder / "ca.key", issued.key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_certificate_says_what_its_holder_is(folder):
    issued = issue(
        folder, [Role.NEURON, Role.OPERATOR], neuron="beast", out=folder / "beast", days=2
    )

    assert set(show(issued.certificate).names) == {
        "neuron.cortex.internal",
        "beast.neuron.cortex.internal",
        "operator.cortex.internal",
    }


def test_an_authority_is_not_replaced(folder):
    before = (folder / "ca.key").read_bytes()

    with pytest.raises(AuthorityError, match="never replaced"):
        create(folder)
    assert before == (folder / "ca.key").read_bytes()


@pytest.mark.parametrize("given", ["", "no hex", "/nowhere"])
def test_what_is_no_certificate_is_not_revoked(folder, given):
    with pytest.raises(AuthorityError, match="neither a file nor a serial number"):
        revoke(folder, given)


def test_a_revoked_certificate_is_listed_once(folder):
    issued = issue(folder, [Role.GATEWAY], out=folder / "gateway", days=2)
    serial = revoke(folder, str(issued.certificate))

    assert revoke(folder, f"0x{serial.upper()}") == serial
    assert (folder / "revoked").read_text().split() == [serial]


def test_a_folder_without_an_authority_is_named(tmp_path):
    with pytest.raises(AuthorityError, match="cortex pki init"):
        issue(tmp_path, [Role.GATEWAY], out=tmp_path / "x", days=2)


def test_a_neuron_needs_a_name(folder):
    with pytest.raises(AuthorityError, match="cannot stand in a certificate"):
        issue(folder, [Role.NEURON], out=folder / "x", days=2)
