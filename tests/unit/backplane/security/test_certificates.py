"""What a certificate says of its holder, and serial numbers as other tools write them."""

import pytest
from cryptography import x509

from services.backplane.security.authority import create, issue
from services.backplane.security.certificates import dns_names, peer_in, read_serial, serial_of
from services.backplane.security.roles import Role


@pytest.fixture
def folder(tmp_path):
    create(tmp_path / "pki")
    return tmp_path / "pki"


def test_a_certificate_names_its_holder(folder):
    issued = issue(folder, [Role.NEURON], neuron="beast", out=folder / "beast", days=2)
    pem = issued.certificate.read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)

    assert dns_names(certificate) == ("neuron.cortex.internal", "beast.neuron.cortex.internal")
    peer = peer_in(pem)
    assert (peer.roles, peer.neurons) == (frozenset({Role.NEURON}), frozenset({"beast"}))
    assert peer.serial == serial_of(certificate) == read_serial(f"0{peer.serial.upper()}")


def test_one_without_names_says_nothing_but_its_serial(folder):
    authority = (folder / "ca.pem").read_bytes()

    assert dns_names(x509.load_pem_x509_certificate(authority)) == ()
    assert peer_in(authority).roles == frozenset()
    assert peer_in(authority).serial
    assert peer_in(b"").serial == ""


@pytest.mark.parametrize(
    "text", ["ABC", " 0abc\r", "0xABC", "serial=0ABC", "serial= a:bc", "0A:BC"]
)
def test_serial_numbers_as_other_tools_write_them(text):
    assert read_serial(text) == "abc"


@pytest.mark.parametrize("text", ["", "0", "xyz", "a b", "f" * 41, "/nowhere", "serial="])
def test_what_is_no_serial_number_is_refused(text):
    with pytest.raises(ValueError, match="no serial number"):
        read_serial(text)
