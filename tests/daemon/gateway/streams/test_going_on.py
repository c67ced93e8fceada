"""A gateway is lost in the middle of an utterance: another one goes on with what its client was told."""

import fcntl
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.streams.beginning import GoingOn, run_in
from glowd.daemon.gateway.streams.file_sink import FileSink
from glowd.daemon.gateway.streams.sink_side import FORGET_FRAMES
from glowd.daemon.wire import Code, WireError
from tests.harness.session import HOP, LIMITS, SessionHarness, mel_message, phase_at, ramp

POSITION_MS = 8
TOTAL = 60


def opening(position: wire.Position, **changes: Any) -> dict[str, Any]:
    """What a client states in `open` after it was told its position."""
    kept = ("generation", "key", "samples", "first_frame", "start_frame", "phase", "t_ns", "underruns")
    return {"position_ms": POSITION_MS, **{name: getattr(position, name) for name in kept}, **changes}


def spoken(harness: SessionHarness, frames: int) -> wire.Position:
    """Send and render so many frames one by one; the newest position that the client was told."""
    for _ in range(frames):
        harness.send(1)
        harness.render(1)
    return harness.sent(wire.Position)[-1]


def other_gateway(position: wire.Position, *sinks: str, directory: Path = Path("/nowhere")) -> SessionHarness:
    """A session in which the client goes on."""
    harness = SessionHarness(*sinks, directory=directory, **opening(position))
    harness.session.client.opened()
    return harness


def finish(harness: SessionHarness, position: wire.Position) -> None:
    """The client sends the rest of TOTAL frames, within its credit, and the engine renders it from where it was started."""
    start = harness.sent(ipc.Start, harness.ports.engine)[-1]
    sent = made = start.first_frame - start.lead_frames
    assert sent == position.first_frame and start.phase in (phase_at(start.first_frame), -1.0)
    made = start.first_frame
    for seq, frame in enumerate(range(sent, TOTAL)):
        harness.session.client.mel(mel_message(seq, frame, 1, harness.generation), harness.now_ns)
        if made <= frame:
            harness.session.engine.pcm(harness.pcm(made * HOP, HOP), harness.now_ns)
            made += 1
        if harness.session.state.sinks.device:
            harness.play(max(position.samples, frame * HOP))
    harness.session.client.end(wire.End("s", harness.generation, TOTAL), harness.now_ns)
    harness.session.engine.pcm(harness.pcm(made * HOP, 0, last=True), harness.now_ns)


@given(frames=st.integers(1, TOTAL))
def test_audio_goes_on_at_the_position(frames: int) -> None:
    first = SessionHarness("socket", position_ms=POSITION_MS)
    position = spoken(first, frames)
    second = other_gateway(position, "socket")
    finish(second, position)
    chunks = second.sent(wire.Audio)
    assert chunks[0].first_sample == position.samples <= frames * HOP
    heard = np.concatenate([chunk.payload for chunk in chunks])
    np.testing.assert_array_equal(heard, ramp(position.samples, TOTAL * HOP - position.samples))
    assert second.only(wire.Played) == wire.Played("s", 0, TOTAL * HOP, 0)
    assert not second.sent(wire.Error)


def test_position_names_the_frames_and_phase_that_are_needed() -> None:
    position = spoken(SessionHarness("null", position_ms=POSITION_MS), 30)
    assert (position.samples, position.start_frame, position.first_frame) == (120, 25, 23)
    assert position.phase == phase_at(25) and position.key > 0


def test_position_is_sent_at_the_beginning_and_as_asked() -> None:
    harness = SessionHarness("null", position_ms=POSITION_MS)
    spoken(harness, 10)
    assert [one.samples for one in harness.sent(wire.Position)] == [0, 8, 16, 24, 32, 40]
    silent = SessionHarness("null")
    silent.send(5)
    silent.render(5)
    assert not silent.sent(wire.Position)


def test_device_goes_on_where_it_was_heard() -> None:
    first = SessionHarness("device", "socket", position_ms=POSITION_MS)
    spoken(first, 20)
    first.underrun(12, 0, by_device=True)
    first.play(36)
    position = first.sent(wire.Position)[-1]
    assert (position.samples, position.t_ns, position.underruns) == (36, first.now_ns, 1)
    second = other_gateway(position, "device", "socket")
    attach = second.only(ipc.Attach, second.ports.speaker)
    assert (attach.first_sample, attach.t_dac_ns, attach.goes_on, attach.key) == (36, first.now_ns, True, first.key)
    finish(second, position)
    assert second.sent(ipc.Pcm, second.ports.speaker)[0].first_sample == 36
    second.play_all(TOTAL * HOP)
    assert second.only(wire.Played) == wire.Played("s", 0, TOTAL * HOP, 1)


def test_what_the_device_holds_has_not_been_heard() -> None:
    first = SessionHarness("device", position_ms=POSITION_MS)
    spoken(first, 19)
    first.session.sinks.position(ipc.Position(first.key, 48, first.now_ns, unheard_ns=12_000_000))
    position = first.sent(wire.Position)[-1]
    assert (position.samples, position.t_ns) == (36, first.now_ns - 12_000_000)


def test_samples_from_before_the_loss_do_not_end_the_utterance() -> None:
    """The engine had rendered on, under the same key, and what it sent arrives late."""
    position = spoken(SessionHarness("socket", position_ms=POSITION_MS), 20)
    second = other_gateway(position, "socket")
    second.session.engine.pcm(second.pcm(position.samples + 40, 8), second.now_ns)
    finish(second, position)
    assert second.only(wire.Played).total_samples == TOTAL * HOP and not second.sent(wire.Error)


def test_new_utterance_after_one_that_went_on_is_new() -> None:
    position = spoken(SessionHarness("device", position_ms=POSITION_MS), 20)
    second = other_gateway(position, "device")
    finish(second, position)
    second.play_all(TOTAL * HOP)
    second.reset_counters()
    second.send(2)
    attach = second.sent(ipc.Attach, second.ports.speaker)[-1]
    assert (attach.first_sample, attach.t_dac_ns, attach.goes_on) == (0, 0, False)


def test_paused_stream_goes_on_paused() -> None:
    position = spoken(SessionHarness("device", position_ms=POSITION_MS), 5)
    second = SessionHarness("device", **opening(position, paused=True))
    second.session.client.opened()
    assert [type(one) for one in second.ports.speaker] == [ipc.Attach, ipc.Pause]
    assert second.session.state.state == "paused"


@pytest.mark.parametrize("complete", [False, True])
def test_file_goes_on_without_a_gap(tmp_path: Path, complete: bool) -> None:
    first = SessionHarness("file:a", position_ms=POSITION_MS, directory=tmp_path)
    position = spoken(first, 31)
    (sink,) = first.session.state.sinks._sinks
    assert isinstance(sink, FileSink)
    fcntl.flock(sink._new.file, fcntl.LOCK_UN)  # as the end of its process does
    (tmp_path / "a.wav.glowd-part").open("ab").write(b"\x00")  # half a sample: the gateway was killed while it wrote
    if complete:
        (tmp_path / "a.wav.glowd-part").unlink()
        (tmp_path / "a.wav").write_text("complete")
    second = other_gateway(position, "file:a", directory=tmp_path)
    finish(second, position)
    assert second.only(wire.Played).total_samples == TOTAL * HOP
    if complete:
        assert (tmp_path / "a.wav").read_text() == "complete"
        return
    with wave.open(str(tmp_path / "a.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    np.testing.assert_array_equal(samples, np.round(ramp(0, TOTAL * HOP) * 32767))


def test_file_that_lacks_what_was_heard_is_refused(tmp_path: Path) -> None:
    position = spoken(SessionHarness("file:a", position_ms=POSITION_MS, directory=tmp_path), 30)
    part = tmp_path / "a.wav.glowd-part"
    part.write_bytes(part.read_bytes()[:100])
    second = other_gateway(position, "file:a", directory=tmp_path)
    error = second.only(wire.Error)
    assert error.code == Code.SINK_UNAVAILABLE and "ends at sample 28, before sample 120" in error.text


@pytest.mark.parametrize("changes", [{"start_frame": 26}, {"first_frame": 22}, {"samples": 10**6}])
def test_other_place_than_the_voice_needs_is_refused(changes: dict[str, int]) -> None:
    position = spoken(SessionHarness("null", position_ms=POSITION_MS), 30)
    with pytest.raises(WireError, match="cannot go on") as caught:
        SessionHarness("null", **opening(position, **changes))
    assert caught.value.code is Code.GAP


def test_resampled_audio_begins_early_and_aligned() -> None:
    run_in_samples, aligned_to = run_in(22050, 16000)
    going_on = GoingOn(256, 5, 2, run_in_samples, aligned_to)
    first = going_on.first_sample(100_000)
    assert first % 441 == 0 and 4410 <= 100_000 - first < 4410 + 441
    assert going_on.latest_start(100_000) == first // 256 - 5
    assert run_in(22050, 0) == run_in(22050, 22050) == (0, 1)


def test_stream_that_nobody_asked_about_keeps_few_marks() -> None:
    harness = SessionHarness("null", position_ms=POSITION_MS)
    spoken(harness, 100)
    assert len(harness.session.state.utterance._marks) <= LIMITS.history_frames + FORGET_FRAMES + 2
