"""The renderer on a clock of its own: what it reports, and how it reacts to overload and recovers."""

from collections.abc import Sequence

import numpy as np
import pytest

from glowd.daemon import ipc
from glowd.daemon.config_voices import WaveGlowSettings
from glowd.daemon.engine.overload import HOLD_NS
from glowd.daemon.engine.renderer import LOAD_EVERY_NS, NetworkFailsError
from glowd.daemon.engine.vocoders import describe, prepare
from glowd.flow.mel import Floats
from glowd.flow.vocoder import Stream
from tests.fakes.vocoder import MS, FakeVocoder, S, TimedVocoder
from tests.harness.renderer import RendererHarness


class Warmed(TimedVocoder):
    """Keeps the shapes that it was warmed up for."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.warm: list[tuple[int, int]] = []

    def shapes(self, max_batch: int, max_frames: int) -> list[tuple[int, int]]:
        return [(1, max_frames), (max_batch, max_frames)]

    def warm_up(self, batch: int, frames: int) -> None:
        self.warm.append((batch, frames))


@pytest.mark.parametrize(("set_to", "most", "batch"), [(3, 16, 3), (40, 16, 12), (40, 5, 5)])
def test_prepare_warms_up_for_the_largest_batch(set_to: int, most: int, batch: int) -> None:
    voice, settings = Warmed(), WaveGlowSettings(max_streams=set_to, max_batch=12, max_chunk_frames=16)
    found = prepare(voice, settings, most)
    assert voice.warm == [(1, 16), (batch, 16)]
    assert found is not None and describe(voice, True, found).capacity == found
    assert found.streams == set_to and describe(voice, True, None).capacity is None


def test_measured_capacity_is_described() -> None:
    found = prepare(Warmed(), WaveGlowSettings(), 16)
    assert found is not None and found.measured and describe(FakeVocoder(), False, found).capacity == found


def test_no_chunk_is_late_within_capacity() -> None:
    """70 % of the time is spent in the network, and streams send at all moments."""
    harness = RendererHarness(TimedVocoder(call_ms=8, frame_ms=0.6), streams=10)  # 8 + 10 * 4 * 0.6 = 32 ms of 46.4
    harness.run(30)
    assert harness.levels() == [0] and all(load.late in (None, 0.0) for load in harness.loads)
    assert 0.5 < harness.loads[-1].busy <= 1


def test_slow_calls_make_chunks_grow_and_recovery_shrinks_them() -> None:
    vocoder = TimedVocoder(call_ms=24, frame_ms=0.25)
    harness = RendererHarness(vocoder, streams=4)  # 28 ms of 46.4
    harness.run(5)
    vocoder.slowdown = 2.0  # 56 ms for chunks of 4, 64 of 93 for chunks of 8
    harness.run(25)
    assert harness.levels()[:2] == [0, 1] and 2 not in harness.levels()
    degraded = next(load.degraded for load in harness.loads if load.degraded)
    assert degraded.chunk_frames == 8 and not degraded.refuses and "chunks of 1 s were late" in degraded.reason
    vocoder.slowdown = 1.0
    harness.run(120)
    assert harness.levels()[-1] == 0 and harness.loads[-1].degraded is None
    assert harness.renderer.scheduler.chunk_frames == 4 and harness.renderer.scheduler.max_wait_ns == 60 * MS


def test_overload_beyond_the_largest_chunk_refuses_streams() -> None:
    vocoder = TimedVocoder(call_ms=16, frame_ms=0.5)
    harness = RendererHarness(vocoder, streams=4)
    harness.run(5)
    vocoder.slowdown = 12.0
    harness.run(40)
    assert harness.levels() == [0, 1, 2, 3]
    refusing = next(load.degraded for load in harness.loads if load.level == 3)
    assert refusing and refusing.refuses and refusing.chunk_frames == 16
    vocoder.slowdown = 1.0
    began_ns = vocoder.now_ns
    harness.run(90)
    assert harness.levels()[3:] == [3, 2, 1, 0], "and it recovers, step by step"
    assert harness.renderer.overload is not None and harness.renderer.overload.since_ns - began_ns >= 3 * HOLD_NS


def test_changing_chunk_sizes_lose_and_repeat_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "glowd.daemon.engine.renderer.DIVERGED", np.inf
    )  # the fake's samples are numbers of frames, to tell them apart
    vocoder = TimedVocoder(call_ms=16, frame_ms=0.5)
    harness = RendererHarness(vocoder, streams=2)
    for stolen in (1.0, 12.0, 1.0):
        vocoder.slowdown = stolen
        harness.run(30)
    for key in range(2):
        audio = np.concatenate([m.audio for m in harness.sent if isinstance(m, ipc.Pcm) and m.key == key])
        assert len(audio) == pytest.approx(90 * 22_050, rel=0.01)
        np.testing.assert_array_equal(audio, np.repeat(np.arange(len(audio) // 256, dtype=np.float32), 256))


def test_client_far_ahead_or_stalled_makes_no_chunk_late() -> None:
    vocoder = TimedVocoder(call_ms=4, frame_ms=1)
    harness = RendererHarness(vocoder, streams=1)
    for _ in range(43):  # two seconds of frames at once
        harness.push(0)
    harness.run(10)
    harness.next_ns[0] += 5 * S  # the client stalls
    harness.run(10)
    assert harness.levels() == [0] and all(load.late in (None, 0.0) for load in harness.loads)
    harness.renderer.handle(ipc.Finish(key=0))  # and its end comes long after its last frame
    harness.next_ns[0] = 2**62
    harness.run(3)
    assert all(load.late in (None, 0.0) for load in harness.loads) and not harness.renderer.streams


def test_last_chunk_is_due_by_the_gateways_clock_alone() -> None:
    """The gateway may be on another machine, whose clock shows something else."""
    vocoder = TimedVocoder(call_ms=4, frame_ms=1)
    harness = RendererHarness(vocoder, streams=1)
    behind_ns = 3600 * S
    mel = np.zeros((2, 80), np.float32)
    harness.renderer.handle(ipc.Frames(0, 0, 2, 80, t_gateway_ns=behind_ns, mel=mel))
    harness.renderer.step()
    harness.renderer.handle(ipc.Finish(0, behind_ns + 7 * MS))
    while harness.renderer.step():
        pass
    pcms = [message for message in harness.sent if isinstance(message, ipc.Pcm)]
    assert pcms[-1].last and pcms[-1].t_due_ns == behind_ns + 7 * MS
    assert pcms[-1].t_engine_ns < pcms[-1].t_end_ns < behind_ns, "these are of the engine's own clock"


def test_voice_with_fixed_chunks_refuses_at_the_first_level() -> None:
    class Fixed(TimedVocoder):
        def ready_frames(self, stream: Stream, limit: int) -> int | None:
            return super().ready_frames(stream, min(limit, 4))

    vocoder = Fixed(call_ms=16, frame_ms=0.5)
    harness = RendererHarness(vocoder, streams=4)
    vocoder.slowdown = 12.0
    harness.run(10)
    assert harness.levels() == [0, 1] and harness.renderer.overload is not None
    assert harness.renderer.overload.refuses and harness.renderer.scheduler.chunk_frames == 4


def test_whole_utterance_voice_has_no_overload() -> None:
    vocoder = TimedVocoder(call_ms=500, frame_ms=1)
    vocoder.whole_utterance = True
    harness = RendererHarness(vocoder, streams=4)
    harness.run(10)
    assert harness.renderer.overload is None
    assert {(load.level, load.late, load.degraded) for load in harness.loads} == {(None, None, None)}


def test_load_is_reported_every_second() -> None:
    harness = RendererHarness(TimedVocoder(call_ms=6, frame_ms=1), streams=1)
    harness.run(10)
    times = len(harness.loads)
    assert 9 <= times <= 10 and LOAD_EVERY_NS == S
    last = harness.loads[-1]
    assert last.streams == 1 and last.audio_per_s == pytest.approx(1, abs=0.06)
    assert last.busy == pytest.approx(10 / 46.4, abs=0.02) and last.batches_per_s == pytest.approx(21.5, abs=1)
    assert last.stolen == 0
    harness.vocoder.slowdown = 2.0
    harness.run(3)
    assert harness.loads[-1].stolen == pytest.approx(0.5, abs=0.01)


def test_failed_stream_is_reported_and_others_continue() -> None:
    harness = RendererHarness(TimedVocoder(call_ms=6, frame_ms=1), streams=2)
    harness.run(1)
    harness.renderer.handle(ipc.Frames(key=0, first_frame=7, frames=1, bins=80, mel=np.zeros((1, 80), np.float32)))
    failed = [message for message in harness.sent if isinstance(message, ipc.Failed)]
    assert [message.key for message in failed] == [0] and "frames begin at 7" in failed[0].text
    assert list(harness.renderer.streams) == [1]


def test_mistake_in_one_stream_of_engine_fails_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = RendererHarness(TimedVocoder(call_ms=6, frame_ms=1), streams=2)
    harness.run(1)
    monkeypatch.setattr(harness.renderer.streams[0].inner, "push", lambda _: 1 // 0)
    harness.run(1)
    failed = [message for message in harness.sent if isinstance(message, ipc.Failed)]
    assert [(message.key, message.text.split(":")[0]) for message in failed] == [(0, "ZeroDivisionError")]
    assert list(harness.renderer.streams) == [1]


class Failing(TimedVocoder):
    """Its calls fail while `broken`."""

    broken = False

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access")
        return super().step(streams, frames)


def test_engine_ends_once_every_call_to_the_network_fails() -> None:
    vocoder = Failing(call_ms=1, frame_ms=0)
    harness = RendererHarness(vocoder, streams=0)
    mel = np.zeros((8, 80), np.float32)

    def call(key: int, broken: bool) -> None:
        vocoder.broken = broken
        harness.renderer.handle(ipc.Start(key=key, seed=1, first_frame=0))
        harness.renderer.handle(ipc.Frames(key=key, first_frame=0, frames=8, bins=80, mel=mel))
        harness.renderer.step()

    for key, broken in enumerate((True, True, False, True, True)):
        call(key, broken)
    failed = [message.key for message in harness.sent if isinstance(message, ipc.Failed)]
    assert failed == [0, 1, 3, 4] and list(harness.renderer.streams) == [2], (
        "a stream that can be heard shows that it works"
    )
    with pytest.raises(NetworkFailsError, match=r"3 calls to the network have failed, .* RuntimeError: CUDA error"):
        call(5, True)


class Diverging(TimedVocoder):
    """Its third chunk is far too loud, its fourth is NaN, its sixth a little too loud."""

    calls = 0

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        self.calls += 1
        factor = {3: np.float32(1e18), 4: np.float32(np.nan), 6: np.float32(1.5)}.get(self.calls, np.float32(0.5))
        return [factor * np.ones_like(samples) for samples in super().step(streams, frames)]


def test_diverged_block_is_silenced_and_the_next_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    harness = RendererHarness(Diverging(1, 0), streams=1)
    harness.run(1.0)
    pieces = [message for message in harness.sent if isinstance(message, ipc.Pcm)]
    peaks = [float(np.abs(piece.audio).max()) for piece in pieces]
    assert peaks[:6] == [0.5, 0.5, 0, 0, 0.5, 1.5]
    assert [piece.silenced for piece in pieces[:6]] == [False, False, True, True, False, False]
    assert [piece.peak for piece in pieces[:6]] == [0, 0, 0, 0, 0, 1.5]
    ends = [piece.first_sample + piece.samples for piece in pieces]
    assert [piece.first_sample for piece in pieces[1:]] == ends[:-1], "no sample is lost"
    assert [record.message for record in caplog.records if "diverged far beyond full scale" in record.message][1:] == []
    assert "stream 0 diverged far beyond full scale" in caplog.text
