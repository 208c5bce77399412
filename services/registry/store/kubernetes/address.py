"""Which objects of which cluster are the store: `kubernetes://NAMESPACE/NAME`."""

from __future__ import annotations

import dataclasses
import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from services.backplane.address import Address
from services.backplane.security.exposure import is_loopback

SCHEME: Final = "kubernetes://"
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_MOST_NAMESPACE: Final = 63
# What is made of the name has up to 24 characters more.
_MOST_NAME: Final = 200
_OPTIONS: Final = ("server", "token_file", "ca_file")


@dataclasses.dataclass(frozen=True, slots=True)
class KubernetesAddress:
    """Names the store's objects, and the API server where it is not that of the own cluster.

    Attributes:
        namespace: of all objects.
        name: of the Lease; the names of all others begin with it.
        server: `https://HOST:PORT`; empty: that of the cluster in which this process runs.
        token_file: has the token; empty: that of the pod's service account, or none where
            `server` is plain HTTP.
        ca_file: authorities that the server's certificate is checked by; empty: the pod's.
    """

    namespace: str
    name: str
    server: str = ""
    token_file: str = ""
    ca_file: str = ""

    @classmethod
    def parse(cls, url: str) -> KubernetesAddress:
        """Reads `kubernetes://NAMESPACE/NAME`, with `?server=…&token_file=…&ca_file=…` behind it.

        Raises:
            ValueError: it is none; the message says why.
        """
        parts = urlsplit(url)
        namespace, name = parts.netloc, parts.path.removeprefix("/")
        for what, text, most in (
            ("namespace", namespace, _MOST_NAMESPACE),
            ("name", name, _MOST_NAME),
        ):
            if not _LABEL.fullmatch(text) or len(text) > most:
                raise ValueError(
                    f"its {what} is none of Kubernetes' names: small letters, digits and `-`;"
                    " it looks like kubernetes://NAMESPACE/NAME"
                )
        try:
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
        except ValueError:
            options = {parts.query: ""} if parts.query else {}
        unknown = sorted(options.keys() - set(_OPTIONS))
        if unknown or parts.fragment:
            raise ValueError(f"behind `?` may stand {', '.join(_OPTIONS)}, each with a value")
        _check_server(options.get("server", ""))
        return cls(namespace=namespace, name=name, **options)


def _check_server(server: str) -> None:
    if not server:
        return
    parts = urlsplit(server)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise ValueError("`server` is no https://HOST:PORT")
    if parts.scheme == "http" and not is_loopback(Address(parts.hostname, parts.port or 80)):
        raise ValueError("`server` is plain HTTP, which is for this machine alone")
