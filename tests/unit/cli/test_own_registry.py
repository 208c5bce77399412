import socket

import pytest

from services.backplane.address import Address
from services.cli.own_registry import is_this_machine, names_own_registry


@pytest.mark.parametrize(
    ("listen", "named", "expected"),
    [
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("0.0.0.0:1", "127.0.0.7:1", True),
        ("0.0.0.0:1", f"{socket.gethostname()}:1", True),
        ("0.0.0.0:1", "http://localhost:1", True),
        ("127.0.0.1:1", "localhost:1", True),
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("0.0.0.0:1", "192.0.2.1:1", False),
        ("0.0.0.0:1", "nobody.invalid:1", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "127.0.0.1:1", False),
    ],
)
def test_a_registry_is_known_by_any_of_its_machines_addresses(listen, named, expected):
    assert expected == names_own_registry(Address.parse(listen), ["192.0.2.9:1", named])


def test_a_machine_knows_its_own_addresses():
    assert is_this_machine("127.0.0.1")
    assert not is_this_machine("192.0.2.1")
