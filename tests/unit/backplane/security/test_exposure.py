"""Addresses that other machines reach are served only with credentials, or on somebody's word."""

import pytest

from services.backplane.address import Address
from services.backplane.security.exposure import is_loopback, refuse_exposed
from services.backplane.settings import SettingsError, load


def refuse(listen, *, is_meant=False):
    document = load(None, {"CORTEX_REGISTRY__LISTEN": listen})
    refuse_exposed(
        document, "registry", Address.parse(listen), is_meant=is_meant, remedy="Add a key"
    )


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.0.2.1:1", False),
        ("beast.internal:1", False),
    ],
)
def test_what_only_this_machine_reaches(listen, local):
    assert is_loopback(Address.parse(listen)) is local


def test_an_open_address_is_refused_with_what_to_do():
    with pytest.raises(SettingsError) as caught:
        refuse("0.0.0.0:1")

    for part in ("CORTEX_REGISTRY__LISTEN", "0.0.0.0:1", "Add a key", "insecure = true"):
        assert part in str(caught.value)


def test_loopback_is_served_and_so_is_what_is_meant():
    refuse("0.0.0.0:1", is_meant=True)
    refuse("127.0.0.1:1")
