"""The renderer and its streams on a clock of its own: what is said of them, and how it degrades and recovers."""

from collections.abc import Sequence

import numpy as np
import pytest

from glowd.daemon import ipc
from glowd.daemon.config import WaveGlowVoice
from glowd.daemon.engine.overload import HOLD_NS
from glowd.daemon.engine.renderer import LOAD_EVERY_NS, Renderer
from glowd.daemon.engine.scheduler import Scheduler
from glowd.daemon.engine.vocoders import describe, prepare
from glowd.daemon.wire.fields import Message
from glowd.flow.mel import Floats
from glowd.flow.vocoder import Stream
from tests.daemon.engine.test_scheduler import Toy

MS = 1_000_000
S = 1000 * MS
MESSAGE_FRAMES = 4
MESSAGE_NS = MESSAGE_FRAMES * 256 * S // 22_050


class Machine(Toy):
    """A toy voice whose calls take time on a clock that only moves here: so much each, and so much for each frame."""

    def __init__(self, call_ms: float, frame_ms: float) -> None:
        super().__init__()
        self.call_ns, self.frame_ns, self.now_ns = int(call_ms * MS), int(frame_ms * MS), S
        self.worked_ns = 0
        self.stolen = 1.0
        """Everything takes so many times as long."""

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        work_ns = self.call_ns + self.frame_ns * frames * len(streams)
        self.worked_ns += work_ns
        self.now_ns += int(self.stolen * work_ns)
        return super().step(streams, frames)


class Rig:
    """A renderer of one voice, what it said, and clients that send at real-time pace, each at its own moment."""

    def __init__(self, machine: Machine, streams: int, max_chunk_frames: int = 16) -> None:
        self.machine, self.said, self.streams, self.pushed = machine, list[Message](), streams, [0] * streams
        scheduler = Scheduler(machine, chunk_frames=4, max_chunk_frames=max_chunk_frames, max_batch=16, max_wait_ms=60)
        self.renderer = Renderer(
            machine, scheduler, self.said.append, lambda: machine.now_ns, lambda: machine.worked_ns
        )
        for key in range(streams):
            self.renderer.handle(ipc.Start(key=key, seed=key, first_frame=0))
        self.next_ns = [machine.now_ns + MESSAGE_NS * key // streams for key in range(streams)]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until_ns = self.machine.now_ns + int(seconds * S)
        while self.machine.now_ns < until_ns:
            for key in range(self.streams):
                while self.next_ns[key] <= self.machine.now_ns:
                    self._push(key)
            if not self.renderer.turn():
                wait_ns = self.renderer.scheduler.wait_ns(self.renderer.entries.values(), self.machine.now_ns)
                wake_ns = self.machine.now_ns + (S // 2 if wait_ns is None else max(1, wait_ns))
                self.machine.now_ns = min([wake_ns, *(at_ns for at_ns in self.next_ns if at_ns > self.machine.now_ns)])
            if report := self.renderer.load():
                self.said.append(report)

    def _push(self, key: int) -> None:
        mel = np.zeros((MESSAGE_FRAMES, 80), np.float32)
        self.renderer.handle(
            ipc.Frames(
                key=key, first_frame=self.pushed[key], frames=MESSAGE_FRAMES, bins=80, t_gateway_ns=self.next_ns[key],
                mel=mel,
            )
        )  # fmt: skip
        self.pushed[key] += MESSAGE_FRAMES
        self.next_ns[key] += MESSAGE_NS

    @property
    def loads(self) -> list[ipc.EngineLoad]:
        reports = [message.stats for message in self.said if isinstance(message, ipc.Load)]
        return [report for report in reports if isinstance(report, ipc.EngineLoad)]

    def levels(self) -> list[object]:
        """The levels that were reported, each once for every time it began."""
        levels = [load.level for load in self.loads]
        return [level for before, level in zip([None, *levels], levels) if level != before]


class Warmed(Machine):
    """Keeps what it was warmed up for."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.warm: list[tuple[int, int]] = []

    def shapes(self, max_batch: int, max_frames: int) -> list[tuple[int, int]]:
        return [(1, max_frames), (max_batch, max_frames)]

    def warm_up(self, batch: int, frames: int) -> None:
        self.warm.append((batch, frames))


@pytest.mark.parametrize(("set_to", "most", "batch"), [(3, 16, 3), (40, 16, 12), (40, 5, 5)])
def test_it_warms_up_for_what_can_come(set_to: int, most: int, batch: int) -> None:
    voice, settings = Warmed(), WaveGlowVoice(max_streams=set_to, max_batch=12, max_chunk_frames=16)
    found = prepare(voice, settings, most)
    assert voice.warm == [(1, 16), (batch, 16)]
    assert found is not None and describe(voice, True, found).capacity == found
    assert found.streams == set_to and describe(voice, True, None).capacity is None


def test_what_was_measured_is_what_is_told() -> None:
    found = prepare(Warmed(), WaveGlowVoice(), 16)
    assert found is not None and found.measured and describe(Toy(), False, found).capacity == found


def test_within_its_capacity_nothing_is_late() -> None:
    """70 % of the time in the network, as admission allows, and streams that come at all moments."""
    rig = Rig(Machine(call_ms=8, frame_ms=0.6), streams=10)  # 8 + 10 * 4 * 0.6 = 32 ms of 46.4
    rig.run(30)
    assert rig.levels() == [0] and all(load.late in (None, 0.0) for load in rig.loads)
    assert 0.5 < rig.loads[-1].busy <= 1


def test_stolen_time_makes_chunks_grow_until_pace_is_kept_again() -> None:
    machine = Machine(call_ms=24, frame_ms=0.25)
    rig = Rig(machine, streams=4)  # 28 ms of 46.4
    rig.run(5)
    machine.stolen = 2.0  # 56 ms for chunks of 4, 64 of 93 for chunks of 8
    rig.run(25)
    assert rig.levels()[:2] == [0, 1] and 2 not in rig.levels()
    degraded = next(load.degraded for load in rig.loads if load.degraded)
    assert degraded.chunk_frames == 8 and not degraded.refuses and "chunks of 1 s were late" in degraded.reason
    machine.stolen = 1.0
    rig.run(120)
    assert rig.levels()[-1] == 0 and rig.loads[-1].degraded is None
    assert rig.renderer.scheduler.chunk_frames == 4 and rig.renderer.scheduler.max_wait_ns == 60 * MS


def test_when_no_chunk_is_large_enough_new_streams_are_refused_and_a_change_is_told_at_once() -> None:
    machine = Machine(call_ms=16, frame_ms=0.5)
    rig = Rig(machine, streams=4)
    rig.run(5)
    machine.stolen = 12.0
    rig.run(40)
    assert rig.levels() == [0, 1, 2, 3]
    refusing = next(load.degraded for load in rig.loads if load.level == 3)
    assert refusing and refusing.refuses and refusing.chunk_frames == 16
    machine.stolen = 1.0
    began_ns = machine.now_ns
    rig.run(90)
    assert rig.levels()[3:] == [3, 2, 1, 0], "and it recovers, step by step"
    assert rig.renderer.overload is not None and rig.renderer.overload.since_ns - began_ns >= 3 * HOLD_NS


def test_nothing_is_lost_or_doubled_while_chunks_grow_and_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "glowd.daemon.engine.renderer.RUNAWAY", np.inf
    )  # the toy's samples are numbers of frames, to tell them apart
    machine = Machine(call_ms=16, frame_ms=0.5)
    rig = Rig(machine, streams=2)
    for stolen in (1.0, 12.0, 1.0):
        machine.stolen = stolen
        rig.run(30)
    for key in range(2):
        audio = np.concatenate([m.audio for m in rig.said if isinstance(m, ipc.Pcm) and m.key == key])
        assert len(audio) == pytest.approx(90 * 22_050, rel=0.01)
        np.testing.assert_array_equal(audio, np.repeat(np.arange(len(audio) // 256, dtype=np.float32), 256))


def test_a_client_far_ahead_or_far_behind_makes_nothing_late() -> None:
    machine = Machine(call_ms=4, frame_ms=1)
    rig = Rig(machine, streams=1)
    for _ in range(43):  # two seconds of frames at once
        rig._push(0)
    rig.run(10)
    rig.next_ns[0] += 5 * S  # the client stalls
    rig.run(10)
    assert rig.levels() == [0] and all(load.late in (None, 0.0) for load in rig.loads)
    rig.renderer.handle(ipc.Finish(key=0))  # and its end comes long after its last frame
    rig.next_ns[0] = 2**62
    rig.run(3)
    assert all(load.late in (None, 0.0) for load in rig.loads) and not rig.renderer.entries


def test_a_voice_with_one_size_of_chunk_goes_straight_to_refusing() -> None:
    class Fixed(Machine):
        def ready_frames(self, stream: Stream, limit: int) -> int | None:
            return super().ready_frames(stream, min(limit, 4))

    machine = Fixed(call_ms=16, frame_ms=0.5)
    rig = Rig(machine, streams=4)
    machine.stolen = 12.0
    rig.run(10)
    assert rig.levels() == [0, 1] and rig.renderer.overload is not None
    assert rig.renderer.overload.refuses and rig.renderer.scheduler.chunk_frames == 4


def test_a_voice_heard_only_at_its_end_has_no_pace_to_keep() -> None:
    machine = Machine(call_ms=500, frame_ms=1)
    machine.whole_utterance = True
    rig = Rig(machine, streams=4)
    rig.run(10)
    assert rig.renderer.overload is None
    assert {(load.level, load.late, load.degraded) for load in rig.loads} == {(None, None, None)}


def test_a_report_a_second_tells_what_was_done() -> None:
    rig = Rig(Machine(call_ms=6, frame_ms=1), streams=1)
    rig.run(10)
    times = len(rig.loads)
    assert 9 <= times <= 10 and LOAD_EVERY_NS == S
    last = rig.loads[-1]
    assert last.streams == 1 and last.audio_per_s == pytest.approx(1, abs=0.06)
    assert last.busy == pytest.approx(10 / 46.4, abs=0.02) and last.batches_per_s == pytest.approx(21.5, abs=1)
    assert last.stolen == 0
    rig.machine.stolen = 2.0
    rig.run(3)
    assert rig.loads[-1].stolen == pytest.approx(0.5, abs=0.01)


def test_a_stream_that_cannot_go_on_is_reported_and_the_others_are_not_touched() -> None:
    rig = Rig(Machine(call_ms=6, frame_ms=1), streams=2)
    rig.run(1)
    rig.renderer.handle(ipc.Frames(key=0, first_frame=7, frames=1, bins=80, mel=np.zeros((1, 80), np.float32)))
    failed = [message for message in rig.said if isinstance(message, ipc.Failed)]
    assert [message.key for message in failed] == [0] and "frames begin at 7" in failed[0].text
    assert list(rig.renderer.entries) == [1]


class Wild(Machine):
    """Its third chunk is not for ears, its fourth is not a number."""

    calls = 0

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        self.calls += 1
        factor = {3: np.float32(1e18), 4: np.float32(np.nan)}.get(self.calls, np.float32(0.5))
        return [factor * np.ones_like(samples) for samples in super().step(streams, frames)]


def test_what_runs_away_is_silenced_for_as_long_and_no_longer(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(Wild(1, 0), streams=1)
    rig.run(1.0)
    pieces = [message for message in rig.said if isinstance(message, ipc.Pcm)]
    peaks = [float(np.abs(piece.audio).max()) for piece in pieces]
    assert peaks[:6] == [0.5, 0.5, 0, 0, 0.5, 0.5]
    ends = [piece.first_sample + piece.samples for piece in pieces]
    assert [piece.first_sample for piece in pieces[1:]] == ends[:-1], "no sample is lost"
    assert [record.message for record in caplog.records if "runs beyond full scale" in record.message][1:] == []
    assert "stream 0 runs beyond full scale" in caplog.text
