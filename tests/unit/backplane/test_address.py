import pytest

from services.backplane.address import Address, BadAddressError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:31313", "127.0.0.1", 31313),
        ("beast.internal:0", "beast.internal", 0),
        ("http://beast:13131/", "beast", 13131),
        ("[::1]:5", "::1", 5),
        ("unix:/run/x.sock", "/run/x.sock", None),
    ],
)
def test_an_address_is_read(text, host, port):
    assert Address(host, port) == Address.parse(text)


@pytest.mark.parametrize("text", ["", "host", ":5", "host:", "host:port", "host:65536", "host:-1"])
def test_a_bad_address_is_refused_with_its_own_text(text):
    with pytest.raises(BadAddressError, match="not"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:2", "unix:/a"])
def test_an_address_is_written_as_it_was_read(text):
    assert text == str(Address.parse(text))


def test_a_wildcard_is_dialled_under_a_name():
    assert Address("beast", 1) == Address.parse("0.0.0.0:1").dialled_as("beast")
    assert Address("here", 1) == Address.parse("here:1").dialled_as("beast")
