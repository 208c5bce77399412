"""The fleet's authority makes keys that only their owner reads, and never replaces itself."""

import base64
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from services.backplane.security.authority import (
    AuthorityError,
    certificate_of,
    create,
    issue,
    revoke,
    show,
    sign,
)
from services.backplane.security.certificate_request import BadRequestError
from services.backplane.security.certificates import peer_in
from services.backplane.security.key_files import new_key, request_for
from services.backplane.security.roles import Role


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


def request(key, *names):
    """A request by another tool, which may put names into it."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        asked = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(asked, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_key_that_stays_with_its_owner_is_signed(folder):
    key = new_key()
    asked = request(key, "beast.neuron.cortex.internal")
    for each in (request_for(key), asked):
        pem = sign(folder, each, [Role.NEURON], neuron="beast", seconds=60)
        certificate = x509.load_pem_x509_certificate(pem)

        assert certificate.public_key() == key.public_key()
        assert peer_in(pem).neurons == {"beast"}
        authority = x509.load_pem_x509_certificate(certificate_of(folder))
        certificate.verify_directly_issued_by(authority)


def test_a_request_gets_no_more_than_its_holder_is(folder):
    forged = request_for(new_key()).replace(b"MI", b"MA", 1)
    weak = request(rsa.generate_private_key(65537, 1024))
    greedy = request(new_key(), "beast.neuron.cortex.internal", "operator.cortex.internal")
    other = request(new_key(), "other.neuron.cortex.internal")
    for each, why in (
        (b"", "no PKCS #10"),
        (forged, "no PKCS #10"),
        (weak, "elliptic curve"),
        (greedy, r"asks for operator\.cortex\.internal"),
        (other, r"asks for other\.neuron"),
    ):
        with pytest.raises(BadRequestError, match=why):
            sign(folder, each, [Role.NEURON], neuron="beast", seconds=60)


def test_a_request_that_another_key_has_signed_is_refused(folder):
    der = x509.load_pem_x509_csr(request_for(new_key())).public_bytes(serialization.Encoding.DER)
    changed = der[:-1] + bytes([der[-1] ^ 1])
    body = base64.encodebytes(changed)
    head, tail = (f"-----{word} CERTIFICATE REQUEST-----\n".encode() for word in ("BEGIN", "END"))

    with pytest.raises(BadRequestError):
        sign(folder, head + body + tail, [Role.NEURON], neuron="beast", seconds=60)
