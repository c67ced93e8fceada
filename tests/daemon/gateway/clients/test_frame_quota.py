"""A peer sends as many frames a second as it may: its credit is held back, no frame is lost, and others notice nothing."""

import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from glowd.clients import Client
from glowd.daemon import ipc, wire
from glowd.daemon.config_reader import load
from glowd.daemon.gateway.clients.frame_quota import FrameQuota
from glowd.daemon.runtime.keys import KeyFiles
from glowd.daemon.wire.address import Address
from tests.fakes.roles import frames, rendered
from tests.harness.gateway import UtteranceClient, running_all
from tests.harness.joining import free_port
from tests.harness.router import HOP, VOICES, RouterHarness, mel_message, voice_info
from tests.harness.waiting import WAIT_S, repeated_after_stalls

ONE, OTHER = "192.0.2.7", "192.0.2.8"
S = 1_000_000_000
LIMIT = 100
WINDOW = 172
"""The first credit of a stream, in frames."""


def made(*settings: str) -> RouterHarness:
    """Two clients of one machine, one of another; all know warnings."""
    harness = RouterHarness(f"server.max_peer_frames_s={LIMIT}", *settings)
    harness.addresses = {b"a": ONE, b"b": ONE, b"c": OTHER}
    for who in (b"a", b"b", b"c"):
        harness.send(who, wire.Hello(who.decode(), 1, wire.VERSION))
    return harness


class Sender:
    """Sends the frames of one stream as soon as it has credit; the engine renders them at once, and the sink takes them."""

    def __init__(self, harness: RouterHarness, who: bytes, stream: str) -> None:
        self.harness, self.who, self.stream = harness, who, stream
        self.credit = harness.open(who, stream).credit_frames
        self.seq = self.sent = self.generation = 0
        self._read = len(harness.mail[who])

    def read(self) -> None:
        for message in self.harness.mail[self.who][self._read :]:
            if isinstance(message, wire.Credit) and (message.stream, message.generation) == (
                self.stream,
                self.generation,
            ):
                self.credit += message.frames
        self._read = len(self.harness.mail[self.who])

    def send(self, most: int = 64, times: int = 1000) -> None:
        self.read()
        while times and (count := min(self.credit, most)):
            times -= 1
            mel = mel_message(self.stream, self.seq, self.sent, count, self.generation)
            self.harness.send(self.who, mel)
            session, audio = self.harness.session(self.stream), np.zeros(count * HOP, np.float32)
            pcm = ipc.Pcm(
                session.state.utterance.key, self.sent * HOP, len(audio), frames_done=self.sent + count, audio=audio
            )
            session.engine.pcm(pcm, self.harness.now_ns)
            self.seq, self.sent, self.credit = self.seq + 1, self.sent + count, self.credit - count
            self.read()

    def flush(self) -> None:
        """End the utterance, and with it the credit; the next one begins."""
        self.harness.send(self.who, wire.Flush(self.stream, self.generation))
        self.generation, self.seq, self.sent, self.credit = self.generation + 1, 0, 0, 0


def test_vessel_holds_a_second_and_loses_what_the_quota_says() -> None:
    quota = FrameQuota()
    quota.tick(S)
    quota.take("p", LIMIT, LIMIT - 1)
    assert not quota.is_full("p", LIMIT)
    quota.take("p", LIMIT, 1)
    assert quota.is_full("p", LIMIT) and not quota.is_full("q", LIMIT)
    assert not quota.is_full("p", 0), "no quota"
    quota.tick(S + S // 50)
    assert not quota.is_full("p", LIMIT)
    quota.tick(3 * S)
    assert len(quota) == 0, "who is silent is forgotten"
    quota.take("p", 0, 10**9)
    assert len(quota) == 0


def run(harness: RouterHarness, seconds: float, *senders: Sender) -> None:
    for _ in range(round(seconds / 0.02)):
        for sender in senders:
            sender.send()
        harness.tick(0.02)
        harness.from_engine("glow", ipc.Ready("glow", voice_info(), harness.instance))  # it is alive


def test_greedy_peer_sends_what_it_may_and_is_told_once() -> None:
    harness = made()
    one, two, calm = Sender(harness, b"a", "1"), Sender(harness, b"b", "2"), Sender(harness, b"c", "3")
    for _ in range(30 * 50):
        run(harness, 0.02, one, two)
        calm.send(1, times=1)
    sent = one.sent + two.sent
    assert 30 * LIMIT <= sent <= 30 * LIMIT + LIMIT + 2 * WINDOW
    assert abs(one.sent - two.sent) <= WINDOW, "its streams get their shares"
    for who in (b"a", b"b"):
        (warning,) = [one for one in harness.received(who, wire.Warning) if one.name == "QUOTA_REACHED"]
        assert warning.text.startswith(
            "the machine 192.0.2.7 sends 100 frames a second, the most for one peer (server.max_peer_frames_s): credit is held"
        )
        assert harness.received(who, wire.Error) == []
    assert calm.sent == 30 * 50 and "QUOTA_REACHED" not in {one.name for one in harness.received(b"c", wire.Warning)}


def test_new_utterances_and_streams_bring_no_more() -> None:
    harness = made()
    one = Sender(harness, b"a", "1")
    total = 0
    for _ in range(30 * 50):
        one.send()
        total += one.sent
        one.flush()
        run(harness, 0.02)
    assert 29 * LIMIT <= total <= 30 * LIMIT + LIMIT + 2 * WINDOW
    for _ in range(20):
        run(harness, 0.2, again := Sender(harness, b"a", "again"))
        total += again.sent
        harness.send(b"a", wire.Close("again"))
    assert total <= 34 * LIMIT + LIMIT + 2 * WINDOW


def test_who_is_held_back_and_sends_is_refused_as_ever() -> None:
    harness = made()
    one = Sender(harness, b"a", "1")
    run(harness, 1, one)
    error = harness.refused(b"a", mel_message("1", one.seq, one.sent, one.credit + 64))
    assert error.name == "OVER_CREDIT" and error.expected_frame == one.sent
    run(harness, 5, one)
    assert one.sent >= 5 * LIMIT, "and goes on"


def test_quota_of_a_running_daemon_can_be_lifted() -> None:
    harness = made()
    one = Sender(harness, b"a", "1")
    run(harness, 2, one)
    held = one.sent
    harness.router.use(load(None, [VOICES]))
    run(harness, 1, one)
    assert one.sent - held > 10 * LIMIT


def test_quota_is_told_in_the_welcome() -> None:
    (welcome,) = made().received(b"a", wire.Welcome)
    assert welcome.limits["max_peer_frames_s"] == LIMIT


FAST = 430
"""Five times the pace of speech."""


@pytest.mark.process
@repeated_after_stalls
def test_others_stay_in_time_beside_a_greedy_peer() -> None:
    """One peer that would send 50 times as fast as speech, and is held to five times, beside streams at the pace of speech."""
    with tempfile.TemporaryDirectory() as directory:
        keys, url = KeyFiles(Path(directory, "keys")), f"tcp://127.0.0.1:{free_port()}"
        with running_all(f"server.endpoint={url}", f"server.keys={keys.directory}") as (gateway, _, _):
            secret = keys.new("greedy", ["push"], {"frames_s": FAST})
            address = Address(url, "", secret, keys.server()[0]).text("greedy")
            calm = [
                UtteranceClient(gateway.endpoint, f"calm-{n}", frames(400), seed=n, pace_s=4 * 256 / 22050)
                for n in range(4)
            ]
            mel = frames(30 * 86)
            with Client(address, timeout_s=WAIT_S) as client, client.open(sinks=["socket"], seed=9) as stream:
                began_s = time.monotonic()
                stream.send(mel, timeout_s=WAIT_S)
                took_s = time.monotonic() - began_s
                stream.end()
                heard = np.concatenate([chunk.payload for chunk in stream.audio(WAIT_S)])
                assert [warning.name for warning in stream.warnings] == ["QUOTA_REACHED"]
            np.testing.assert_array_equal(heard, rendered(9, mel))
            rate = (len(mel) - WINDOW - FAST) / took_s
            assert 0.8 * FAST < rate <= 1.02 * FAST, f"{rate:.0f} frames a second"
            for one in calm:
                one.check()
                late_ms = np.percentile(one.latencies_ns, 99) / 1e6
                assert late_ms < 4 * 256 / 22.05, f"a chunk took {late_ms:.0f} ms"
