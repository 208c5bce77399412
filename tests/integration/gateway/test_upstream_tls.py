"""Upstreams over TLS: whose certificate is believed."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import msgspec
import pytest

from services.gateway.settings import TlsSettings
from services.gateway.transports.upstream.settings import UpstreamSettings
from tests.integration.gateway.fleet import Fleet

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def certify(key: str, chain: str) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=far", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", chain, *names], check=True, capture_output=True
    )


async def test_a_certificate_is_believed_that_the_settings_authority_has_signed(
    bare: Fleet, tmp_path: pathlib.Path
) -> None:
    key, chain = str(tmp_path / "key.pem"), str(tmp_path / "chain.pem")
    certify(key, chain)
    far = Fleet()
    await far.start(tls=TlsSettings(certificate=chain, key=key))
    await far.add_neuron()
    url = f"https://{far.gateway.address}/v1"
    believed = UpstreamSettings(name="far", url=url, models={"known": "tiny"}, ca=chain)
    strange = msgspec.structs.replace(believed, name="strange", models={"odd": "tiny"}, ca="")
    await bare.start(upstreams=(believed, strange))

    answered = await bare.chat(model="known")
    refused = await bare.chat(model="odd")

    assert 200 == answered.status_code
    assert (502, "upstream_failed") == (refused.status_code, refused.json()["error"]["code"])
    assert "certificate" in refused.json()["error"]["message"].lower()
    assert 1 == len(far.neurons[0].requests)
    await far.stop()
