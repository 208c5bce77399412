"""Keys as text: scanners know them, and nobody guesses them."""

import re

from services.backplane.security import api_key

# As docs/security.md tells it to scanners.
DOCUMENTED = r"ctx_[0-9a-z]{10}_[0-9A-Za-z]{38}"


def test_a_new_key_is_known_by_the_documented_form_and_by_its_sum():
    text = api_key.new_key("0123456789")

    assert re.fullmatch(DOCUMENTED, text)
    assert "0123456789" == api_key.id_in(text)


def test_no_two_keys_of_an_id_are_the_same():
    assert 100 == len({api_key.new_key("0123456789") for _ in range(100)})


def test_a_mistyped_key_is_none():
    text = api_key.new_key("0123456789")
    other = "0" if text[20] != "0" else "1"

    assert api_key.id_in(text[:20] + other + text[21:]) is None
    assert api_key.id_in(text[:-1]) is None
    assert api_key.id_in("sk-something") is None


def test_the_digest_is_of_the_whole_text():
    text = api_key.new_key("0123456789")

    assert 32 == len(api_key.digest_of(text))
    assert api_key.digest_of(text) != api_key.digest_of(text[:-1])
