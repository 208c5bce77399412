"""Against a real server on this machine; only the server of names is made up."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.agent.tools.web import fetching
from services.agent.tools.web.fetching import (
    FetchedPage,
    FetchError,
    OtherSiteError,
    fetch,
    proxy_of,
)


class Server:
    """Answers each path with what was put there; remembers the heads of requests."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.heads: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        writer.write(self.answers[head.split(" ")[1]])
        writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    served = Server()
    async with await asyncio.start_server(served.serve, "127.0.0.1", 0) as server:
        served.port = server.sockets[0].getsockname()[1]
        yield served


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "".join(f"{each}\r\n" for each in headers)
    return f"HTTP/1.1 {status}\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Names:
    """A server of names, which may answer each time otherwise."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class PrivateError(Exception):
    pass


def refuse(url: str) -> None:
    raise PrivateError(url)


async def get(url: str, names: Names, *, private: bool = True, **environment: str) -> FetchedPage:
    return await fetch(
        url,
        environment=environment,
        before=lambda: None,
        permit_private=(lambda _: None) if private else refuse,
        resolve=names.resolve,
    )


async def test_the_connection_goes_to_the_address_that_was_checked_under_its_name():
    names = Names(["127.0.0.1"], ["192.0.2.7"])  # an attacker's second answer
    async with serving() as server:
        server.answers["/a?b"] = answer(b"h\xe9", "content-type: text/plain; charset=latin-1")
        page = await get(f"http://site.test:{server.port}/a?b", names)

    assert ("hé", 200, "text/plain") == (page.text, page.status, page.content_type)
    assert ["site.test"] == names.asked
    assert f"host: site.test:{server.port}" in server.heads[0].lower()
    assert "cookie" not in server.heads[0].lower()


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["::ffff:169.254.169.254"]]
)
async def test_a_name_with_any_private_address_is_refused_before_it_is_asked(
    addresses: list[str],
):
    with pytest.raises(PrivateError):
        await get("http://site.test/", Names(addresses), private=False)


async def test_spellings_of_loopback_are_seen_through():
    for host in ("2130706433", "0x7f.1", "localhost", "[::1]"):
        with pytest.raises(PrivateError):
            await fetch(
                f"http://{host}/", environment={}, before=lambda: None, permit_private=refuse
            )


async def test_redirects_are_followed_within_the_site_and_told_beyond_it():
    names = Names(["127.0.0.1"])
    async with serving() as server:
        there = f"http://site.test:{server.port}"
        moved = "302 Found"
        server.answers["/a"] = answer(b"", "location: /b", status=moved)
        server.answers["/b"] = answer(b"here", "content-type: text/plain")
        server.answers["/out"] = answer(b"", "location: http://10.0.0.1/x", status=moved)
        server.answers["/file"] = answer(b"", "location: file:///etc/passwd", status=moved)
        server.answers["/round"] = answer(b"", "location: /round", status=moved)
        page = await get(f"{there}/a", names)
        with pytest.raises(OtherSiteError, match=r"fetch http://10\.0\.0\.1/x"):
            await get(f"{there}/out", names)
        with pytest.raises(OtherSiteError):
            await get(f"{there}/file", names)
        with pytest.raises(FetchError, match="redirects"):
            await get(f"{there}/round", names)

    assert (f"{there}/b", "here") == (page.url, page.text)
    assert names.asked.count("site.test") == len(server.heads), "each hop is checked anew"


async def test_size_is_bounded_after_unpacking_and_pictures_are_no_text(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(fetching, "MOST_BYTES", 100_000)
    names = Names(["127.0.0.1"])
    packed = gzip.compress(b"a" * 10_000_000)
    async with serving() as server:
        server.answers["/bomb"] = answer(
            packed, "content-type: text/plain", "content-encoding: gzip"
        )
        server.answers["/picture"] = answer(b"...", "content-type: image/png")
        page = await get(f"http://site.test:{server.port}/bomb", names)
        with pytest.raises(FetchError, match="image/png, not text"):
            await get(f"http://site.test:{server.port}/picture", names)

    assert (100_000, True) == (len(page.text), page.is_cut)


@pytest.mark.parametrize("packing", ["gzip, gzip", "br"])
async def test_what_is_packed_twice_or_unasked_is_refused(packing: str):
    async with serving() as server:
        server.answers["/"] = answer(
            gzip.compress(gzip.compress(b"a")),
            "content-type: text/plain",
            f"content-encoding: {packing}",
        )
        with pytest.raises(FetchError, match="packed"):
            await get(f"http://site.test:{server.port}/", Names(["127.0.0.1"]))


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "bz2", "nonsense"])
async def test_no_page_chooses_how_it_is_decoded_but_by_a_charset(charset: str):
    async with serving() as server:
        server.answers["/"] = answer(b"\\x41-a", f"content-type: text/plain; charset={charset}")
        page = await get(f"http://site.test:{server.port}/", Names(["127.0.0.1"]))

    assert "\\x41-a" == page.text


async def test_a_server_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetching, "SECONDS", 0.3)
    async with serving() as server:
        server.answers["/"] = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n"
        with pytest.raises(FetchError):
            await get(f"http://site.test:{server.port}/", Names(["127.0.0.1"]))


async def test_a_proxy_of_the_environment_is_asked_by_the_name():
    async with serving() as proxy:
        proxy.answers["http://site.test/a"] = answer(b"by proxy")
        page = await get(
            "http://site.test/a", Names(["1.1.1.1"]), HTTP_PROXY=f"127.0.0.1:{proxy.port}"
        )
        with pytest.raises(PrivateError):
            await get(
                "http://site.test/a",
                Names(["10.0.0.1"]),
                private=False,
                http_proxy=f"http://127.0.0.1:{proxy.port}",
            )

    assert "by proxy" == page.text


def test_no_proxy_names_the_sites_that_are_asked_directly():
    environment = {
        "HTTPS_PROXY": "http://p:1",
        "all_proxy": "http://all:2",
        "NO_PROXY": "x, .b.test",
    }

    assert "http://p:1" == proxy_of("https://a.test/", environment)
    assert "http://all:2" == proxy_of("http://a.test/", environment)
    assert "" == proxy_of("https://b.test/", environment)
    assert "" == proxy_of("https://a.b.test:1/", environment)
    assert "http://p:1" == proxy_of("https://ab.test/", environment)
    assert "" == proxy_of("https://a.test/", {**environment, "no_proxy": "*", "NO_PROXY": ""})
    assert "" == proxy_of("https://a.test/", {})
