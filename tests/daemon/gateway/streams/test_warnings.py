"""What the daemon notices about a stream reaches the stream's client as a warning, once of each kind."""

import dataclasses
from collections.abc import Callable

import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.clients.connections import LISTENER_BUFFER_S
from glowd.daemon.wire import WarningCode
from tests.harness.router import HOP as ROUTER_HOP
from tests.harness.router import RouterHarness, mel_message
from tests.harness.session import HOP, LIMITS, RATE, SessionHarness, ramp


def speaking(*sinks: str) -> SessionHarness:
    harness = SessionHarness(*sinks)
    harness.send(4)
    return harness


def slow(warnings: list[wire.Warning]) -> list[wire.Warning]:
    """Those about who reads too slowly; the mels of a harness are no speech, which is warned of too."""
    return [warning for warning in warnings if warning.code == WarningCode.SLOW_LISTENER]


def diverged(harness: SessionHarness, first: int = 0, **changes: object) -> None:
    message = dataclasses.replace(harness.pcm(first, HOP), **changes)  # type: ignore[arg-type]
    harness.session.engine.pcm(message, harness.now_ns)


def limited(harness: SessionHarness) -> None:
    harness.session.sinks.limited(ipc.Limited(harness.key, 2 * HOP, 1.6, 3))


CASES: dict[str, tuple[Callable[[SessionHarness], object], WarningCode, int, str]] = {
    "silenced": (
        lambda harness: diverged(harness, silenced=True),
        WarningCode.AUDIO_SILENCED, 0, "from frame 0 on the voice diverged far beyond full scale and is silent",
    ),
    "a loud voice": (
        lambda harness: diverged(harness, peak=1.5),
        WarningCode.AUDIO_LIMITED, 0, "from frame 0 on the voice reaches 1.50 times full scale",
    ),
    "a loud mix": (
        limited, WarningCode.AUDIO_LIMITED, 2, "from frame 2 on the stream, together with 2 other streams, reaches 1.60",
    ),
    "late frames": (
        lambda harness: harness.underrun(4 * HOP, 10**9),
        WarningCode.LATE_FRAMES, 4, "a gap of 3 ms before frame 4, whose frames had not arrived in time: send them earlier",
    ),
    "a late engine": (
        lambda harness: harness.underrun(0, 10**9),
        WarningCode.LATE_ENGINE, 0, "a gap of 3 ms before frame 0, which the daemon had not rendered in time",
    ),
    "a lost device": (
        lambda harness: harness.underrun(HOP, 0, by_device=True),
        WarningCode.DEVICE_GAP, 1, "a gap of 3 ms before frame 1, because the sound device or the speaker was gone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_notice_about_the_audio_is_a_warning_once(case: str) -> None:
    happens, code, frame, said = CASES[case]
    harness = speaking("device")
    for _ in range(2):
        happens(harness)
    (warning,) = harness.sent(wire.Warning)
    assert (warning.code, warning.name, warning.stream) == (code, code.name, "s")
    assert (warning.generation, warning.first_frame) == (0, frame)
    assert said in warning.text
    assert not harness.sent(wire.Error)


def test_sample_a_little_above_full_scale_is_no_warning() -> None:
    harness = speaking("device")
    diverged(harness, peak=1.05)
    assert harness.sent(wire.Warning) == []


def test_client_that_does_not_read_its_audio_is_warned() -> None:
    harness = SessionHarness("socket", limits=dataclasses.replace(LIMITS, hop=RATE))
    harness.ports.owner_reads = False
    for _ in range(0, 20, 4):
        harness.send(4)
    harness.session.engine.pcm(
        dataclasses.replace(harness.pcm(0, 4 * HOP), samples=2 * RATE, audio=ramp(0, 2 * RATE)), harness.now_ns
    )
    (warning,) = slow(harness.sent(wire.Warning))
    assert warning.code == WarningCode.SLOW_LISTENER and "2.0 s of audio wait for this client" in warning.text


def test_paused_client_is_not_called_slow() -> None:
    harness = SessionHarness("socket", limits=dataclasses.replace(LIMITS, hop=RATE))
    harness.send(4)
    harness.session.client.pause(True)
    harness.session.engine.pcm(
        dataclasses.replace(harness.pcm(0, 4 * HOP), samples=2 * RATE, audio=ramp(0, 2 * RATE)), harness.now_ns
    )
    assert harness.sent(wire.Warning) == harness.sent(wire.Error) == []


def test_slow_listener_and_owner_are_told_once_and_others_not() -> None:
    harness = RouterHarness()
    for who in (b"owner", b"slow", b"old", b"quick"):
        newest = 1 if who == b"old" else wire.VERSION
        harness.send(who, wire.Hello(who.decode(), max_version=newest))
        if who != b"owner":
            harness.send(who, wire.Listen("s"))
    harness.open(b"owner", "s", "null")
    harness.not_reading |= {b"slow", b"old"}
    frames = int(LISTENER_BUFFER_S * 22_050 / ROUTER_HOP) + 20
    session = harness.session("s")
    for frame in range(frames):
        if frame % 4 == 0:
            harness.send(b"owner", mel_message("s", frame // 4, frame))
        session.engine.pcm(pcm(session.state.utterance.key, frame), harness.now_ns)
    assert harness.received(b"slow", wire.Warning) == []
    harness.not_reading.clear()
    harness.tick(0.02)
    (told,) = harness.received(b"slow", wire.Warning)
    assert told.code == WarningCode.SLOW_LISTENER and "audio of stream s was lost" in told.text and told.stream == "s"
    assert [chunk.gap for chunk in harness.received(b"slow", wire.Audio)].count(True) == 1
    (owner,) = slow(harness.received(b"owner", wire.Warning))
    assert owner.code == WarningCode.SLOW_LISTENER and "listens to this stream, reads too slowly" in owner.text
    assert harness.received(b"old", wire.Warning) == [] == harness.received(b"quick", wire.Warning)


def pcm(key: int, frame: int) -> ipc.Pcm:
    samples = ROUTER_HOP
    return ipc.Pcm(
        key=key, first_sample=frame * samples, samples=samples, frames_done=frame + 1, t_gateway_ns=1, t_due_ns=1,
        audio=ramp(0, samples),
    )  # fmt: skip
