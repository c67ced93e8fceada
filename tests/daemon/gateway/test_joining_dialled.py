"""Engines that listen, and are dialled by the gateway: they serve as those that dial, and need the same keys."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from glowd.daemon import ipc
from glowd.daemon.config_reader import load
from glowd.daemon.engine.joined import JoinedEngine, LoadedVoice
from glowd.daemon.gateway.joined_socket import JoinedSocket
from glowd.daemon.runtime.keys import keypair
from glowd.daemon.runtime.sockets import Remote
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.telemetry import Snapshot
from tests.daemon.link_messages import INFO
from tests.fakes.joined import FakeJoined
from tests.fakes.roles import frames
from tests.fakes.vocoder import FakeVocoder
from tests.harness.gateway import GatewayHarness, UtteranceClient, running_gateway
from tests.harness.joined_gateway import ALONE, Place, engine_of, names, running_place
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
    place.wait_for("speaking", lambda found: any((one.made_samples or 0) > 50 * 256 for one in found.streams.values()))
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


@contextlib.contextmanager
def rival_of(place: Place) -> Iterator[GatewayHarness]:
    """Another gateway with the same keys that dials the same engine."""
    settings = (f"server.dial_engines=['{place.url}']", f"server.keys={place.keys.directory}")
    with running_gateway(ALONE, *settings) as gateway:
        yield gateway


@contextlib.contextmanager
def own_engine(place: Place) -> Iterator[JoinedEngine]:
    """An engine of this version that listens."""
    engine = JoinedEngine(load(None, []), "glow", place.pool, "gpu", listen=place.url)
    engine.use(LoadedVoice(FakeVocoder(), ipc.Ready("glow", INFO, 7)))
    thread = threading.Thread(target=engine.run)
    thread.start()
    try:
        yield engine
    finally:
        engine.stop()
        thread.join()


def dialled(found: Snapshot) -> str:
    (why,) = found.dialled.values()
    return why


def test_two_gateways_do_not_take_an_engine_from_each_other() -> None:
    """The one that has it keeps it, and the other one gets it when the first is gone."""
    with running_place(dial=True) as place, rival_of(place) as rival, own_engine(place) as engine:
        until(lambda: engine.joined_as, "that one has it")
        has = place if place.client().status().voices["glow"].ready else rival
        waits = rival if has is place else place
        run_dir = has.run_dir
        waits.wait_for("a reason", lambda found: f":{run_dir} at 127.0.0.1 has it" in dialled(found))
        instance = engine.joined_as
        for _ in range(4):  # for as long as a silent gateway would be lost
            time.sleep(1)
            assert engine.joined_as == instance and has.client().status().voices["glow"].ready
            assert f":{run_dir} at 127.0.0.1 has it" in dialled(waits.client().status())
        has.kill()
        began_s = time.monotonic()
        waits.wait_for("that it has it", lambda found: found.voices["glow"].ready and not dialled(found))
        assert time.monotonic() - began_s < WAIT_S / 3


def test_gateway_that_is_started_again_gets_its_engine(place: Place) -> None:
    """It was killed, and nobody else waits: nothing of its old connection is in its way."""
    with own_engine(place) as engine:
        place.wait_for("ready", lambda found: found.voices["glow"].ready)
        place.kill()
        until(lambda: not engine.joined_as, "that its end is noticed", timeout_s=2)
        with rival_of(place) as again:
            again.wait_for("ready", lambda found: found.voices["glow"].ready)
            assert dialled(again.client().status()) == ""


def test_reasons_of_a_dialled_engine_are_shown(place: Place) -> None:
    place.wait_for("nobody", lambda found: "nobody listens there" in dialled(found))
    revoked = Address(place.url, "", place.keys.new("revoked", ["engine"]), place.keys.server()[0])
    place.keys.revoke("revoked")
    stranger = place.start("stranger", revoked, listen=place.url)
    place.wait_for("its key", lambda found: "its key is unknown here" in dialled(found))
    stranger.crash()
    foreign = Address(place.url, "", revoked.secret, keypair()[0])
    other = place.start("other", foreign, listen=place.url)
    place.wait_for("another daemon", lambda found: "the address of another daemon" in dialled(found))
    other.crash()
    with socket.create_server(("127.0.0.1", int(place.url.rpartition(":")[2]))) as server:
        program, _ = server.accept()
        program.sendall(b"SSH-2.0-OpenSSH_9.6 is no greeting of ZMTP, but long enough for one\r\n" * 4)
        time.sleep(0.2)
        program.close()
    listening(place)
    place.wait_for("used", lambda found: not dialled(found))


def test_name_without_an_address_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with zmq.Context() as context:
        joined = JoinedSocket(context, Remote("", None, "engines"))
        joined.use(load(None, ["server.dial_engines=['tcp://no-such-name.invalid:7801', 'tcp://localhost:7801']"]))

        def why() -> str:
            joined.tick(time.monotonic_ns())
            return joined.dialling.why_not["tcp://no-such-name.invalid:7801"]

        until(why, "a reason")
        assert why() == "the name has no address"
        until(lambda: why() and joined.dialling.why_not["tcp://localhost:7801"], "the other one")
        joined.close()
