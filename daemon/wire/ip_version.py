"""Whether an address is reached by IPv6: ZeroMQ has to be told, before a socket is connected or bound.

Rules: of an address itself it is read; of a name the system's resolver is asked, which may wait for seconds. A name that has
addresses of both kinds is reached by IPv4: ZeroMQ tries one address, and what listens at all of IPv4 is more common. A name
that has none (yet) may get one of either kind: with IPv6, ZeroMQ takes both (RFC 3493, AI_V4MAPPED).
"""

import ipaddress
import re
import socket

__all__ = ["host_of", "is_wildcard", "no_address", "read_ipv6", "wants_ipv6"]

PLACE = re.compile(r"tcp://(?P<host>\[[^\[\]]+\]|[^:\[\]]+):(?P<port>\d{1,5})")
EVERYWHERE = "*"


def host_of(url: str) -> str:
    """The host of tcp://HOST:PORT, without the brackets of IPv6; "" if it is not such an address."""
    if (match := PLACE.fullmatch(url)) is None or not 0 < int(match["port"]) < 65536:
        return ""
    host = match["host"]
    if not host.startswith("["):
        return host
    return host[1:-1] if _version(host[1:-1]) == 6 else ""


def is_wildcard(host: str) -> bool:
    """Whether a host is no machine, but all addresses of this one."""
    return host == EVERYWHERE or (_version(host) is not None and ipaddress.ip_address(host).is_unspecified)


def read_ipv6(url: str) -> bool | None:
    """Whether an address needs IPv6, as far as it can be read in it; None: it is a name.

    All addresses of this machine ("*") include those of IPv6; without IPv6, ZeroMQ listens by IPv4.
    """
    host = host_of(url)
    if not host or host == EVERYWHERE:
        return host == EVERYWHERE
    version = _version(host)
    return None if version is None else version == 6


def wants_ipv6(url: str) -> bool:
    """Whether an address needs IPv6; asks the resolver for a name, and waits for it."""
    if (read := read_ipv6(url)) is not None:
        return read
    try:
        found = socket.getaddrinfo(host_of(url), None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except OSError:
        return True
    return all(family != socket.AF_INET for family, *_ in found)


def no_address(url: str) -> str:
    """Why the host of an address cannot be found; "" if it can. Asks the resolver for a name, and waits for it."""
    if not (host := host_of(url)) or read_ipv6(url) is not None:
        return ""
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"the name {host!r} has no address ({error.strerror or error})"
    return ""


def _version(host: str) -> int | None:
    """Of a literal address; None for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None
