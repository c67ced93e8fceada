"""Addresses of daemons on other machines: read whole or refused, and never shown with their secret."""

import pytest

from glowd.daemon.wire.address import Address, address_of, addresses_of

SERVER, CLIENT = bytes(range(32)), bytes(range(32, 64))


def test_address_comes_back_from_its_text() -> None:
    made = Address("tcp://host.example:7766", "", CLIENT, SERVER)
    text = made.text("desk")
    read = address_of(text)
    assert (read.url, read.secret, read.server_key) == (made.url, CLIENT, SERVER)
    assert read.shown == "glowd://desk@host.example:7766"
    assert text.startswith("glowd://desk:") and len(text.split("#")[1]) == 64


def test_local_and_plain_addresses_are_what_they_are() -> None:
    for text in ("ipc:///run/glowd.ipc", "tcp://127.0.0.1:5", "nonsense"):
        assert address_of(text) == Address(text, text)


@pytest.mark.parametrize(
    "text",
    [
        "glowd://host:1", "glowd://a:b@host:1#c", "glowd://", f"glowd://a:{'0' * 64}@host:1", f"glowd://a@host:1#{'0' * 64}",
        f"glowd://a:{'0' * 64}@host#{'0' * 64}", f"glowd://a b:{'0' * 64}@host:1#{'0' * 64}",
    ],
)  # fmt: skip
def test_part_of_an_address_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be glowd://NAME:SECRET@HOST:PORT#SERVERKEY") as caught:
        address_of(text)
    assert "0" * 64 not in str(caught.value)


def test_list_of_addresses_is_read_in_its_order() -> None:
    desk = Address("tcp://host.example:7766", "", CLIENT, SERVER).text("desk")
    found = addresses_of(f" {desk} ,tcp://b:2,ipc:///run/a,b/glowd.ipc ")
    assert [one.shown for one in found] == ["glowd://desk@host.example:7766", "tcp://b:2", "ipc:///run/a,b/glowd.ipc"]
    assert found[0] == address_of(desk)
    assert addresses_of("ipc:///a,b") == [Address("ipc:///a,b", "ipc:///a,b")]


@pytest.mark.parametrize(
    "text", ["ipc:///a,tcp://b", "ipc:///a,tcp://b:1,", "ipc:///a,http://b:1", "tcp://a:1,b:1,tcp://c:1"]
)
def test_wrong_address_in_a_list_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"address \d of the list must be ipc://PATH, tcp://HOST:PORT, or a whole glowd://"
    ):
        addresses_of(text)
