"""Which addresses are reached by IPv6."""

import socket

import pytest

from glowd.daemon.wire.ip_version import host_of, is_wildcard, read_ipv6, wants_ipv6

NAMES = {"four": [socket.AF_INET], "six": [socket.AF_INET6], "both": [socket.AF_INET6, socket.AF_INET]}


@pytest.mark.parametrize(
    ("url", "host", "read"),
    [
        ("tcp://[::1]:7800", "::1", True),
        ("tcp://[fe80::1%eth0]:7800", "fe80::1%eth0", True),
        ("tcp://[::]:7800", "::", True),
        ("tcp://*:7800", "*", True),
        ("tcp://0.0.0.0:7800", "0.0.0.0", False),
        ("tcp://127.0.0.1:7800", "127.0.0.1", False),
        ("tcp://host.example:7800", "host.example", None),
        ("ipc:///run/[::1]:7800", "", False),
        ("tcp://::1:7800", "", False),
        ("tcp://[host]:7800", "", False),
        ("tcp://[127.0.0.1]:7800", "", False),
        ("tcp://[::1]:0", "", False),
        ("tcp://[::1]", "", False),
    ],
)
def test_address_shows_whether_it_is_of_ipv6(url: str, host: str, read: bool | None) -> None:
    assert (host_of(url), read_ipv6(url)) == (host, read)


@pytest.mark.parametrize(("name", "wanted"), [("four", False), ("six", True), ("both", False), ("unknown", True)])
def test_name_needs_ipv6_if_it_has_no_other(monkeypatch: pytest.MonkeyPatch, name: str, wanted: bool) -> None:
    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[socket.AddressFamily]]:
        if host not in NAMES:
            raise socket.gaierror
        return [(family,) for family in NAMES[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert wants_ipv6(f"tcp://{name}:7800") is wanted


def test_hosts_that_are_all_of_a_machine() -> None:
    assert [host for host in ("*", "0.0.0.0", "::", "0::0", "::1", "host", "127.0.0.1") if is_wildcard(host)] == [
        "*", "0.0.0.0", "::", "0::0",
    ]  # fmt: skip
