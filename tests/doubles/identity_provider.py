"""An OpenID provider on loopback that signs what a test asks for, and publishes the keys it says."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Generator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "cortex"


class IdentityProvider:
    """Its keys by their id, and what it answers.

    Attributes:
        url: its own, as issuer.
        published: ids of the keys that it publishes.
        also: what it publishes besides, whatever that is.
        asked: the paths that were asked for.
        is_away: it answers with 503.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._keys: dict[str, Any] = {}
        self.published: list[str] = []
        self.also: list[object] = []
        self.asked: list[str] = []
        self.is_away = False
        self.add_key("one")

    def add_key(self, key_id: str, *, curve: bool = False) -> None:
        """Makes a key pair and publishes its public half."""
        if curve:
            self._keys[key_id] = ec.generate_private_key(ec.SECP256R1())
        else:
            self._keys[key_id] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.published.append(key_id)

    def public_pem(self, key_id: str = "one") -> bytes:
        from cryptography.hazmat.primitives import serialization as form

        public = self._keys[key_id].public_key()
        pem: bytes = public.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        return pem

    def private_jwk(self, key_id: str = "one") -> dict[str, Any]:
        """The key pair itself, which nobody should publish."""
        return {**json.loads(RSAAlgorithm.to_jwk(self._keys[key_id])), "kid": key_id}

    def claims(self, **more: Any) -> dict[str, Any]:
        """The usual claims, with others in their place; those that are None are left out."""
        now = time.time()
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ann",
            "iat": now,
            "exp": now + 300,
            "groups": ["staff"],
        }
        return {name: value for name, value in {**usual, **more}.items() if value is not None}

    def token(self, *, key_id: str = "one", algorithm: str = "RS256", **claims: Any) -> str:
        """A signed token."""
        headers = {"kid": key_id}
        return jwt.encode(self.claims(**claims), self._keys[key_id], algorithm, headers=headers)

    def answer(self, path: str) -> tuple[int, Any]:
        """What a request gets."""
        self.asked.append(path)
        if self.is_away:
            return 503, {}
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        if path == "/keys":
            return 200, {"keys": [*map(self._jwk, self.published), *self.also]}
        return 404, {}

    def _jwk(self, key_id: str) -> dict[str, Any]:
        public = self._keys[key_id].public_key()
        is_rsa = isinstance(public, rsa.RSAPublicKey)
        text = RSAAlgorithm.to_jwk(public) if is_rsa else ECAlgorithm.to_jwk(public)
        return {**json.loads(text), "kid": key_id, "use": "sig"}


@contextlib.contextmanager
def identity_provider() -> Generator[IdentityProvider]:
    """One that answers while the context is open."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = provider.answer(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = IdentityProvider(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
