"""Which site a URL belongs to: what a permission to fetch covers. Pure."""

from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}


def site(url: str) -> str:
    """Returns `host`, or `host:port` where the port is not its scheme's, in lower case.

    Empty for what is no http or https URL, has no host, or carries credentials.
    """
    parts = _parts(url)
    if parts is None:
        return ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else str(parts.hostname)
    port = parts.port
    return host if port in {None, _PORTS[parts.scheme]} else f"{host}:{port}"


def is_same_site(before: str, after: str) -> bool:
    """Says whether a redirect stays: the same site, never from https back to http."""
    first, second = _parts(before), _parts(after)
    if first is None or second is None or (first.scheme, second.scheme) == ("https", "http"):
        return False
    return site(before) == site(after)


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url.strip())
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts if parts.hostname.isprintable() and " " not in parts.hostname else None
