"""Engines that listen, and are dialled by the gateway: they serve as those that dial, and need the same keys."""

import contextlib
import threading
from collections.abc import Iterator

import pytest
import zmq

from glowd.daemon.config_reader import load
from glowd.daemon.gateway.joined_socket import JoinedSocket
from glowd.daemon.runtime.sockets import Remote
from tests.fakes.joined import FakeJoined
from tests.fakes.roles import frames
from tests.harness.gateway import UtteranceClient
from tests.harness.joined_gateway import Place, engine_of, names, running_place
from tests.harness.waiting import WAIT_S, until


@pytest.fixture
def place() -> Iterator[Place]:
    with running_place(dial=True) as found:
        yield found


def listening(place: Place, called: str = "gpu") -> FakeJoined:
    """An engine that serves where the gateway dials."""
    return place.join(called, listen=place.url)


def test_engine_that_is_dialled_serves_and_is_measured(place: Place) -> None:
    engine = listening(place)
    UtteranceClient(place.endpoint, "s", frames(100), 3, 1).check()
    assert [start.first_frame for start in engine.starts] == [0]
    place.wait_for("a link", lambda found: (one := engine_of(found, engine).link) and one.trip_ms is not None)


def test_engine_that_was_killed_is_dialled_again(place: Place) -> None:
    go, lost = threading.Event(), listening(place)
    spoken = UtteranceClient(place.endpoint, "s", frames(300), 3, 1, go=go)
    place.wait_for("speaking", lambda found: any(one.made_samples for one in found.streams.values()))
    lost.crash()
    place.wait_for("away", lambda found: not found.voices["glow"].ready)
    again = listening(place)
    go.set()
    spoken.check()
    assert names(place.client().status()) == {"glow/gpu"} and again.starts[0].first_frame > 0


def test_engine_without_a_key_is_dialled_and_not_used(place: Place) -> None:
    revoked = place.key("revoked")
    place.keys.revoke("revoked")
    stranger = place.start("stranger", revoked, listen=place.url)
    stranger.hung.wait(1.5)  # the gateway dials once a second
    assert not stranger.joined and names(place.client().status()) == set()
    stranger.crash()
    until(lambda: listening(place).joined, "one with a key")


def test_engine_is_dialled_as_long_as_the_settings_say() -> None:
    """The socket alone: what engines send to it, before and after a reload."""
    with zmq.Context() as context, contextlib.ExitStack() as closing:
        engines, ports = {}, {}
        for name in ("stays", "goes", "comes"):
            engines[name] = closing.enter_context(context.socket(zmq.DEALER))
            ports[name] = engines[name].bind_to_random_port("tcp://127.0.0.1")
        joined = JoinedSocket(context, Remote("", None, "engines"))
        closing.enter_context(joined.socket)

        def use(*names: str) -> None:
            joined.use(load(None, [f"server.dial_engines={[f'tcp://127.0.0.1:{ports[name]}' for name in names]}"]))

        def heard(name: str) -> bool:
            engines[name].setsockopt(zmq.SNDTIMEO, 1000 * WAIT_S)
            engines[name].send(name.encode())
            return bool(joined.socket.poll(1000 * WAIT_S)) and joined.socket.recv_multipart()[1] == name.encode()

        use("stays", "goes")
        assert heard("stays") and heard("goes")
        use("stays", "comes")
        assert heard("comes") and heard("stays")
        until(lambda: not engines["goes"].poll(0, zmq.POLLOUT), "that it has no gateway")
