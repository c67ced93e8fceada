"""What one peer may send, listen to and record is limited over all its clients; others notice nothing."""

from pathlib import Path
from typing import Any

import pytest

from glowd.daemon import wire
from glowd.daemon.gateway.clients.rates import BURST_S, Rates, Verdict
from glowd.daemon.runtime.keys import ClientKey
from glowd.daemon.runtime.permissions import EVERYTHING
from glowd.daemon.runtime.quotas import Quotas
from glowd.daemon.runtime.sockets import Sender
from glowd.daemon.wire import Code, WarningCode
from tests.harness.router import RouterHarness, mel_message

ONE, OTHER = "localhost:1000:1000:4711", "localhost:1000:1000:4712"
S = 1_000_000_000


def made(*settings: str) -> RouterHarness:
    """Two clients of one process, one of another; all know warnings."""
    harness = RouterHarness("server.max_peer_messages_s=20", "server.max_peer_requests_s=2", *settings)
    harness.addresses = {b"a": ONE, b"b": ONE, b"c": OTHER}
    for who in (b"a", b"b", b"c"):
        harness.send(who, wire.Hello(who.decode(), 1, wire.VERSION))
    return harness


def test_peer_at_its_rate_is_fine_for_ever() -> None:
    rates = Rates()
    verdicts = {rates.count("p", "k", 20, (b"a", 1), number * S // 20) for number in range(10_000)}
    assert verdicts == {Verdict.FINE}
    rates.tick(10_000 * S)
    assert len(rates) == 0, "who is silent is forgotten"


def test_burst_is_told_once_and_what_goes_on_is_ended() -> None:
    rates = Rates()
    verdicts = [rates.count("p", "k", 20, (b"a", 1), 0) for _ in range(20 * (BURST_S + 1) + 1)]
    assert verdicts.index(Verdict.TELL) == 20 * BURST_S and verdicts.count(Verdict.TELL) == 1
    assert verdicts.index(Verdict.END) == len(verdicts) - 1
    assert rates.worst("p", "k", (b"b", 2)) == (b"a", 1)


@pytest.mark.parametrize(
    ("message", "setting", "allowed"),
    [(wire.Ping(1), "server.max_peer_messages_s", 20), (wire.Status(), "server.max_peer_requests_s", 2)],
)
def test_flooding_client_is_told_then_ended(message: wire.Message, setting: str, allowed: int) -> None:
    harness = made()
    harness.open(b"c", "s")
    for _ in range(allowed * BURST_S + 5):
        harness.send(b"a", message)
    (warning,) = harness.received(b"a", wire.Warning)
    assert (warning.code, warning.name) == (WarningCode.QUOTA_REACHED, "QUOTA_REACHED")
    assert f"process 4711 of user 1000 sends more than {allowed} " in warning.text and f"({setting})" in warning.text
    harness.send(b"b", wire.Ping(7))
    assert harness.received(b"b", wire.Pong)[-1].t_client_ns == 7, "it is told and served"
    for _ in range(allowed + 5):
        harness.send(b"a", message)
    harness.tick()
    fatal = harness.received(b"a", wire.Error)[0]
    assert fatal.code == Code.OVER_QUOTA and fatal.fatal and setting in fatal.text
    assert harness.clients == {b"b", b"c"}, "of the peer's clients the one that sends most"
    harness.send(b"c", mel_message("s"))
    assert harness.received(b"c", wire.Error) == []
    harness.tick(60)
    harness.connect(b"a")


def test_old_client_is_told_by_an_error_that_is_not_fatal() -> None:
    harness = RouterHarness("server.max_peer_messages_s=10")
    harness.connect(b"a")
    for _ in range(10 * BURST_S):
        harness.send(b"a", wire.Ping(1))
    (error,) = harness.received(b"a", wire.Error)
    assert error.code == Code.OVER_QUOTA and not error.fatal
    assert b"a" in harness.clients


def test_hellos_of_strangers_count_for_their_peer() -> None:
    harness = made("server.max_clients=4096", "server.max_peer_clients=4096")
    for number in range(3 * BURST_S):
        who = b"stranger-%d" % number
        harness.addresses[who] = ONE
        harness.send(who, wire.Hello("x"))
    assert len(harness.clients) < 3 * BURST_S
    assert any(
        error.code == Code.OVER_QUOTA and error.fatal
        for who in harness.mail
        for error in harness.received(who, wire.Error)
    )
    harness.send(b"c", wire.Ping(1))
    assert harness.received(b"c", wire.Pong)


def test_bytes_without_meaning_count_too() -> None:
    harness = made()
    for _ in range(20 * (BURST_S + 2)):
        harness.send_parts(b"a", [b"\xc1"])
    harness.tick()
    assert harness.clients == {b"b", b"c"}


def test_listens_of_a_peer_are_limited() -> None:
    harness = made("server.max_peer_listens=18", "server.max_streams=16")
    assert harness.send(b"a", wire.Listen("*")) == harness.send(b"b", wire.Listen("x")) == []
    assert harness.send(b"b", wire.Listen("y")) == harness.send(b"b", wire.Listen("y")) == []
    error = harness.refused(b"a", wire.Listen("z"))
    assert error.code == Code.OVER_QUOTA and error.text == (
        "process 4711 of user 1000 listens to 18 of 18 streams, the most for one peer (server.max_peer_listens; all streams "
        "count as 16); send unlisten for one"
    )
    assert harness.send(b"c", wire.Listen("*")) == []
    harness.send(b"b", wire.Unlisten("x"))
    assert harness.send(b"a", wire.Listen("z")) == []


def record(harness: RouterHarness, who: bytes, name: str, frames: int = 4) -> list[wire.Message]:
    """One recording, as far as it goes: the gateway is given what an engine would make."""
    before = len(harness.mail[who])
    harness.send(who, wire.Open(name, sinks=[f"file:{name}"]))
    if harness.streams.find(name):
        harness.send(who, wire.End(name, 0, 0), wire.Close(name))
    return harness.mail[who][before:]


def test_recordings_of_a_peer_are_counted_while_they_are_there(tmp_path: Path) -> None:
    harness = made("files.max_peer_files=2", f"files.directory={tmp_path}/r", "server.max_peer_requests_s=1000")
    record(harness, b"a", "one")
    record(harness, b"b", "two")
    (error,) = (answer for answer in record(harness, b"a", "three") if isinstance(answer, wire.Error))
    assert (
        error.code == Code.OVER_QUOTA
        and error.fatal
        and error.text
        == (
            "process 4711 of user 1000 has 2 recordings, the most for one peer (files.max_peer_files); delete some, or raise it"
        )
    )
    assert not (tmp_path / "r" / "three.wav.glowd-part").exists() and harness.stream_names == set()
    record(harness, b"c", "four")
    (tmp_path / "r" / "one.wav").unlink()
    record(harness, b"a", "three")
    assert {path.stem for path in (tmp_path / "r").iterdir()} == {"two", "three", "four"}


def test_bytes_of_recordings_are_limited(tmp_path: Path) -> None:
    harness = made("files.max_peer_mb=1", f"files.directory={tmp_path}")
    stream = harness.open(b"a", "long", "file:long")
    sink = harness.session("long").state.ports.recordings
    path = sink.path("long")
    sink.charge(path, 900_000)
    path.with_name("long.wav.glowd-part").write_bytes(bytes(900_000))
    with pytest.raises(wire.WireError, match=r"have 1 MB, the most for one peer \(files.max_peer_mb\)"):
        sink.charge(path, 200_000)
    path.with_name("long.wav.glowd-part").unlink()
    sink.charge(path, 200_000)
    assert stream.stream == "long"


def test_key_has_quotas_of_its_own() -> None:
    harness = RouterHarness("server.max_streams=8")
    key = ClientKey("desk", b"public", EVERYTHING, {"streams": 1})
    harness.router._keys = lambda: {b"public": key}
    sent = wire.encode(wire.Hello("desk"))
    harness.router.handle(b"k", sent, harness.now_ns, sender=lambda: Sender("192.0.2.1", b"public", key_name="desk"))
    (welcome,) = harness.received(b"k", wire.Welcome)
    assert (welcome.limits["max_peer_streams"], welcome.limits["max_peer_clients"]) == (1, 48)
    harness.open(b"k", "1")
    text = "the key desk has 1 streams open, the most for one peer (streams of its key); close one, or try again later"
    assert harness.refused(b"k", wire.Open("2", sinks=["null"]), fatal=True).text == text


def test_quotas_of_a_key_are_checked() -> None:
    from glowd.daemon.runtime.quotas import SETTINGS, QuotaError, checked
    from glowd.daemon.wire.admin import QUOTAS

    assert set(SETTINGS) == set(QUOTAS) == set(Quotas.__dataclass_fields__) - {"of_key"}
    assert checked({"streams": 4}) == {"streams": 4}
    wrongs: tuple[Any, ...] = (
        {"streams": 0},
        {"streams": True},
        {"streams": "4"},
        {"of_key": 3},
        {"x": 1},
        [],
    )
    for wrong in wrongs:
        with pytest.raises(QuotaError):
            checked(wrong)
