"""The engine link and its first version: bytes that never change, and an engine of today at a gateway of the release before."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glowd.daemon import engine_link, ipc
from glowd.daemon.config_reader import load
from glowd.daemon.engine.joined import JoinedEngine, LoadedVoice
from glowd.daemon.wire.address import Address
from tests.daemon.link_messages import INFO, VERSION_1, VERSION_2, VERSION_3, VERSION_4
from tests.fakes import link_v1
from tests.fakes.old_link import OldGateway
from tests.fakes.vocoder import FakeVocoder
from tests.harness.joining import free_port
from tests.harness.waiting import WAIT_S, until

GOLDEN = Path(__file__).parent / "golden_engine_link"


ALL = VERSION_1 | VERSION_2 | VERSION_3 | VERSION_4


def golden(name: str) -> list[bytes]:
    """The bytes that a message had when it was new."""
    return [bytes.fromhex(line) for line in (GOLDEN / f"{name}.hex").read_text().splitlines()]


@pytest.mark.parametrize("name", ALL)
def test_golden_bytes_never_change(name: str) -> None:
    message = ALL[name]
    assert engine_link.encode(message) == golden(name)
    assert engine_link.decode(golden(name)) == message


@pytest.mark.parametrize("name", VERSION_1)
def test_frozen_version_1_reads_and_writes_its_bytes(name: str) -> None:
    kind, fields, payload = link_v1.decode(golden(name))
    assert link_v1.encode(kind, fields, payload) == golden(name)


def test_every_message_is_kept() -> None:
    assert {message.TYPE for message in VERSION_1.values()} == set(link_v1.FIELDS)
    assert {message.TYPE for message in ALL.values()} == set(engine_link.CODEC.types)


def test_older_versions_ignore_the_name_of_a_gateway() -> None:
    kind, fields, _ = link_v1.decode(golden("joined_by"))
    assert (kind, fields) == ("joined", {"version": 3, "name": "glow/pool-1"})


def test_version_1_ignores_the_time_of_an_end() -> None:
    kind, fields, _ = link_v1.decode(golden("finish_at"))
    assert (kind, fields) == link_v1.decode(golden("finish"))[:2]


def test_frozen_version_1_refuses_what_it_does_not_know() -> None:
    with pytest.raises(link_v1.RefusedError, match="'probe' is unknown"):
        link_v1.decode([b"\x81\xa4type\xa5probe"])
    with pytest.raises(link_v1.RefusedError, match=r"joined\.name is None, not str"):
        link_v1.decode([b"\x82\xa4type\xa6joined\xa7version\x01"])


@pytest.fixture
def old_gateway() -> Iterator[OldGateway]:
    gateway = OldGateway(f"tcp://127.0.0.1:{free_port()}")
    try:
        yield gateway
    finally:
        gateway.stop()


def test_engine_serves_an_old_gateway(old_gateway: OldGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glowd.daemon.engine.renderer.DIVERGED", np.inf)  # the fake's samples are numbers of frames
    engine = JoinedEngine(load(None, []), "glow", Address(old_gateway.url, ""), "today")
    engine.use(LoadedVoice(FakeVocoder(), ipc.Ready("glow", INFO, 7)))
    thread = threading.Thread(target=engine.run)
    thread.start()
    try:
        until(lambda: old_gateway.ready, "that it has joined")
        samples = old_gateway.render(np.zeros((24, 80), np.float32), WAIT_S)
        np.testing.assert_array_equal(samples, np.repeat(np.arange(24, dtype=np.float32), 256))
        assert old_gateway.stamps == {(11, 12)}, "the times of client and gateway come back as they were sent"
        engine.leave()
        thread.join(WAIT_S)
        assert not thread.is_alive() and old_gateway.refused == []
    finally:
        engine.stop()
        thread.join()


def test_versions_agree_on_the_lower_one() -> None:
    def agreed(version: int, oldest: int) -> int | None:
        join = engine_link.Join(version, oldest, "glow", "x", 1, "host", 1, 4, 16)
        return engine_link.agreed_version(join)

    newest = engine_link.VERSION
    assert agreed(1, 1) == 1
    assert agreed(newest, 1) == agreed(newest + 1, newest) == newest
    assert agreed(newest + 2, newest + 1) is None


def test_golden_files_are_of_messages_that_are_tried() -> None:
    assert {path.stem for path in GOLDEN.glob("*.hex")} == set(ALL)
