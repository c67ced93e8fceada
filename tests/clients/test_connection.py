"""The protocol of a client without I/O: the heartbeat, by a clock that the test moves."""

import pytest

from glowd.clients import errors
from glowd.clients.connection import Connection
from glowd.clients.gateways import Gateways
from glowd.daemon import wire
from glowd.daemon.wire.address import addresses_of


class Rig:
    """A greeted connection and its clock."""

    def __init__(self, reconnect_s: float = 0.0) -> None:
        self.now_s, gateways = 100.0, Gateways(addresses_of("ipc://x"))
        self.connection = Connection("test", gateways, lambda: round(self.now_s * 1e9), reconnect_s)
        steps = self.connection.questions.greet()
        next(steps)
        self.receive(wire.Welcome(1, "fake 1", [], ["null"], {}))
        with pytest.raises(StopIteration):
            next(steps)
        self.sent()

    def receive(self, message: wire.Message) -> None:
        self.connection.receive(wire.encode(message))

    def sent(self) -> list[wire.Message]:
        """What was sent since the last call."""
        messages = [wire.decode(parts) for parts in self.connection.outbox]
        self.connection.outbox.clear()
        return messages

    def after(self, seconds: float) -> list[wire.Message]:
        """What a tick sends after this time."""
        self.now_s += seconds
        self.connection.tick()
        return self.sent()


def test_first_reason_of_an_end_counts() -> None:
    """The daemon ends a client, which has sent a message more: the answer to that is not the reason."""
    rig = Rig()
    rig.receive(wire.Error(int(wire.Code.NOT_ALLOWED), "NOT_ALLOWED", "the key desk was revoked", fatal=True))
    rig.receive(wire.Error(int(wire.Code.NO_HELLO), "NO_HELLO", "the first message must be hello, not end", fatal=True))
    with pytest.raises(errors.GlowdError, match="the key desk was revoked"):
        rig.connection.check()


def test_nothing_is_left_to_send_without_a_daemon() -> None:
    connection = Connection("test", Gateways(addresses_of("ipc://x")), lambda: 0)
    next(connection.questions.greet())
    assert connection.outbox, "hello"
    connection.leave()
    assert not connection.outbox


def test_tick_sends_a_ping_every_five_seconds() -> None:
    rig = Rig()
    assert [len(rig.after(1)) for _ in range(12)] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]


def test_tick_before_the_welcome_sends_nothing() -> None:
    now_s = 0.0
    connection = Connection("test", Gateways(addresses_of("ipc://x")), lambda: round(now_s * 1e9))
    now_s = 60.0
    connection.tick()
    assert not connection.outbox and connection.failure is None


def test_silence_of_twenty_seconds_fails_the_connection() -> None:
    rig = Rig()
    for _ in range(40):
        rig.after(0.5)
    assert rig.after(0.5) == []
    with pytest.raises(errors.DaemonGone, match=r"the daemon at ipc://x has sent nothing for 20 s"):
        rig.connection.check()


def test_any_message_ends_the_silence() -> None:
    rig = Rig()
    for message in (wire.Pong(), wire.State("other", "idle", {}), wire.Credit("other", 0, 1)):
        for _ in range(38):
            rig.after(0.5)
        rig.receive(message)
    assert rig.connection.failure is None


def test_absence_of_the_program_is_no_silence() -> None:
    rig = Rig()
    rig.after(27)
    for _ in range(10):
        rig.after(0.5)
    assert rig.connection.failure is None


def test_failed_connection_sends_nothing_more() -> None:
    rig = Rig()
    rig.receive(wire.Error(503, "STOPPING", "the daemon is stopping", fatal=True))
    assert rig.after(6) == []
    rig.connection.leave()
    assert rig.sent() == []
    with pytest.raises(errors.DaemonError, match="stopping"):
        rig.connection.check()


def test_lost_transport_before_the_welcome_is_no_failure() -> None:
    connection = Connection("test", Gateways(addresses_of("ipc://x")), lambda: 0)
    connection.transport_lost("no daemon yet")
    assert connection.failure is None
    rig = Rig()
    rig.connection.transport_lost("the first reason")
    rig.connection.transport_lost("the second reason")
    with pytest.raises(errors.DaemonGone, match="the first reason"):
        rig.connection.check()


@pytest.mark.parametrize("code", [wire.Code.TOO_MANY_CLIENTS, wire.Code.STOPPING, None])
def test_client_that_is_turned_away_asks_at_a_pace(code: wire.Code | None) -> None:
    """Each time at once, by a daemon that is back: a new socket takes it some work."""
    rig = Rig(reconnect_s=30)
    rig.after(1)
    rig.connection.transport_lost("closed the connection")
    before = rig.connection.sockets
    for _ in range(100):
        if code is None:
            rig.connection.transport_lost("does not let this key in")
        else:
            rig.receive(wire.Error(int(code), code.name, "no", fatal=True))
        rig.after(0.01)
    assert rig.connection.failure is None and 5 <= rig.connection.sockets - before <= 10
