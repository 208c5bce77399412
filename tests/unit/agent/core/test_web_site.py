import pytest

from services.agent.core.web_site import is_same_site, site


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Docs.Python.org/3/", "docs.python.org"),
        ("http://localhost:8080/x?y", "localhost:8080"),
        ("https://h:443", "h"),
        ("http://h:443", "h:443"),
        ("http://[::1]:9/", "[::1]:9"),
        ("ftp://h/", ""),
        ("file:///etc/passwd", ""),
        ("https://user:secret@h/", ""),
        ("https://h:port/", ""),
        ("https://", ""),
        ("http://[::1", ""),
        ("h", ""),
    ],
)
def test_a_site_is_a_host_and_a_port_that_is_not_the_usual_one(url: str, expected: str):
    assert expected == site(url)


def test_a_redirect_stays_on_its_site_and_never_leaves_https():
    assert is_same_site("http://h/a", "https://h/b")
    assert not is_same_site("https://h/a", "http://h/a")
    assert not is_same_site("https://h/a", "https://h.example/a")
    assert not is_same_site("https://h/a", "https://h:8443/a")
    assert not is_same_site("https://h/a", "file:///h")
