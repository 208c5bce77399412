"""Requests for certificates that are not granted."""

import base64
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.backplane.security.certificate_request import BadRequestError, key_of
from services.backplane.security.key_files import new_key

NAMES = ("neuron.cortex.internal", "beast.neuron.cortex.internal")


def request_of(key, *extensions):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return builder.sign(key, hashes.SHA256())


def pem_of(request):
    return request.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("curve", [ec.SECP192R1, ec.SECP224R1, ec.SECP256K1])
def test_a_key_that_tls_does_not_take_is_not_signed(curve):
    request = pem_of(request_of(ec.generate_private_key(curve())))

    with pytest.raises(BadRequestError, match="not of P-256"):
        key_of(request, NAMES)


def test_a_request_for_an_address_is_refused_as_one_for_a_name():
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("10.0.0.1"))])

    with pytest.raises(BadRequestError, match=r"IPAddress 10\.0\.0\.1"):
        key_of(pem_of(request_of(new_key(), address)), NAMES)


def test_a_request_of_no_known_version_is_refused():
    data = bytearray(request_of(new_key()).public_bytes(serialization.Encoding.DER))
    at = data.index(b"\x02\x01\x00")  # the version, an integer of one octet
    data[at + 2] = 1
    lines = base64.encodebytes(bytes(data)).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n"

    with pytest.raises(BadRequestError, match="version"):
        key_of(pem.encode(), NAMES)
