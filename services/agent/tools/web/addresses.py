"""Which addresses belong to the public internet. Pure."""

import ipaddress

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Says whether an IP address is one of the public internet's.

    Loopback, private, link-local (a cloud's metadata service among them), shared, reserved and
    multicast ones are not, nor is an IPv6 address that carries such an IPv4 one.

    Raises:
        ValueError: the text is no IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        inner = ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip.is_site_local:  # given up, and yet in use
            return False
        if inner is not None and not is_public(str(inner)):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)
