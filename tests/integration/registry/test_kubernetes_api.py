"""Calls to an API server that refuses, is away, cuts connections, and replaces its tokens."""

from __future__ import annotations

import datetime as dt
import ipaddress
import pathlib
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.backplane.timeouts import timeout
from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.kubernetes.api_server import ApiServer, ConflictError
from services.registry.store.store import StoreError
from tests.doubles.kubernetes_api import Fault, KubernetesApi, kubernetes_api

PATH = "/api/v1/namespaces/llm/configmaps"


def body(name: str = "a", **metadata: Any) -> dict[str, Any]:
    kept = {"name": name, "namespace": "llm", **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": kept, "data": {"k": "v"}}


def certificate(folder: pathlib.Path) -> pathlib.Path:
    """A certificate of 127.0.0.1 that is its own authority; the folder with it."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, folder.name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder


@pytest.fixture
async def server(api: KubernetesApi):
    made = ApiServer(KubernetesAddress("llm", "fleet", api.url))
    yield made
    await made.close()


async def test_objects_are_made_read_replaced_and_removed(server: ApiServer):
    assert await server.get(f"{PATH}/a") is None
    assert await server.replace(f"{PATH}/a", body()) is None
    await server.remove(f"{PATH}/a")
    made = await server.create(PATH, body())
    with pytest.raises(ConflictError, match="already exists"):
        await server.create(PATH, body())

    replaced = await server.replace(f"{PATH}/a", made | {"data": {"k": "w"}})
    with pytest.raises(ConflictError, match="modified"):
        await server.replace(f"{PATH}/a", made | {"data": {"k": "late"}})

    assert replaced is not None
    found = await server.get(f"{PATH}/a")
    assert found is not None
    assert found["data"] == {"k": "w"}
    await server.remove(f"{PATH}/a")
    assert await server.get(f"{PATH}/a") is None


@pytest.mark.parametrize("status", [429, 500, 503, 0])
async def test_what_passes_is_tried_again(api: KubernetesApi, server: ApiServer, status: int):
    api.faults = [Fault(times=2, status=status)]

    assert (await server.create(PATH, body()))["metadata"]["name"] == "a"
    assert len(api.asked) == 1


async def test_a_write_whose_answer_was_lost_is_a_conflict_to_look_into(
    api: KubernetesApi, server: ApiServer
):
    api.faults = [Fault(is_done=True)]

    with pytest.raises(ConflictError):
        await server.create(PATH, body())
    assert ("configmaps", "a") in api.objects


async def test_when_the_server_says_later_it_is_asked_later(api: KubernetesApi, server: ApiServer):
    """More than there is time for: the refusal is the answer, at once, and nobody asked again."""
    api.faults = [Fault(times=9, status=429, retry_after="30")]

    with pytest.raises(StoreError, match="429: as it was told"):
        await server.get(f"{PATH}/a", seconds=20.0)
    assert api.faults[0].times == 8


async def test_what_does_not_pass_is_told_in_the_servers_words(
    api: KubernetesApi, server: ApiServer
):
    api.rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]

    with pytest.raises(StoreError, match=r'403: configmaps "" is forbidden.*cannot create'):
        await server.create(PATH, body())
    assert len(api.asked) == 1


async def test_a_server_that_is_away_or_silent_is_told_in_time(
    api: KubernetesApi, server: ApiServer
):
    api.is_away = True
    with pytest.raises(StoreError, match="no API server"):
        await server.get(f"{PATH}/a", seconds=0.3)
    api.is_away = False
    api.open.clear()
    async with timeout(10.0):
        with pytest.raises(StoreError, match="no API server"):
            await server.get(f"{PATH}/a", seconds=0.3)
    api.open.set()
    assert await server.get(f"{PATH}/a") is None


async def test_the_token_is_read_again_when_it_was_replaced(api: KubernetesApi, tmp_path):
    token = tmp_path / "token"
    token.write_text("first\n")
    api.token = "first"
    server = ApiServer(KubernetesAddress("llm", "fleet", api.url, str(token)))
    assert await server.get(f"{PATH}/a") is None

    api.token = "second"
    token.write_text("second\n")
    assert await server.get(f"{PATH}/a") is None

    api.faults = [Fault(status=401)]  # it was replaced between its reading and the call
    assert await server.get(f"{PATH}/a") is None

    api.token = "third"
    with pytest.raises(StoreError, match="401: Unauthorized"):
        await server.get(f"{PATH}/a")
    token.unlink()
    with pytest.raises(StoreError, match="token"):
        await server.get(f"{PATH}/a", seconds=0.2)
    await server.close()


async def test_the_servers_certificate_is_checked_by_the_named_authorities(tmp_path):
    own, other = (certificate(tmp_path / name) for name in ("own", "other"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(own / "tls.crt", own / "tls.key")
    token = tmp_path / "token"
    token.write_text("t")
    with kubernetes_api(tls) as api:
        for folder, is_trusted in ((other, False), (own, True)):
            ca = str(folder / "tls.crt")
            server = ApiServer(KubernetesAddress("llm", "fleet", api.url, str(token), ca))
            if is_trusted:
                assert await server.get(f"{PATH}/a") is None
            else:
                with pytest.raises(StoreError, match=r"(?i)certificate"):
                    await server.get(f"{PATH}/a", seconds=3.0)
                assert not api.asked
            await server.close()


async def test_outside_of_a_cluster_that_is_told(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    server = ApiServer(KubernetesAddress("llm", "fleet"))

    with pytest.raises(StoreError, match=r"runs in no cluster.*\?server="):
        await server.get(f"{PATH}/a")
    await server.close()
