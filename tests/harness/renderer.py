"""A renderer with clients that send at the pace of speech, on a clock that only the vocoder moves."""

import numpy as np

from glowd.daemon import ipc
from glowd.daemon.engine.renderer import Renderer
from glowd.daemon.engine.scheduler import Scheduler
from glowd.daemon.wire.fields import Message
from tests.fakes.vocoder import S, TimedVocoder

MESSAGE_FRAMES = 4
MESSAGE_NS = MESSAGE_FRAMES * 256 * S // 22_050


class RendererHarness:
    """A renderer of one voice, what it sent, and clients that send at real-time pace, each at its own moment."""

    def __init__(self, vocoder: TimedVocoder, streams: int, max_chunk_frames: int = 16) -> None:
        self.vocoder, self.sent, self.streams, self.pushed = vocoder, list[Message](), streams, [0] * streams
        scheduler = Scheduler(vocoder, chunk_frames=4, max_chunk_frames=max_chunk_frames, max_batch=16, max_wait_ms=60)
        self.renderer = Renderer(vocoder, scheduler, self.sent.append, lambda: vocoder.now_ns, lambda: vocoder.cpu_ns)
        for key in range(streams):
            self.renderer.handle(ipc.Start(key=key, seed=key, first_frame=0))
        self.next_ns = [vocoder.now_ns + MESSAGE_NS * key // streams for key in range(streams)]

    def run(self, seconds: float) -> None:
        """Let time pass on the vocoder's clock."""
        until_ns = self.vocoder.now_ns + int(seconds * S)
        while self.vocoder.now_ns < until_ns:
            for key in range(self.streams):
                while self.next_ns[key] <= self.vocoder.now_ns:
                    self.push(key)
            if not self.renderer.step():
                wait_ns = self.renderer.scheduler.wait_ns(self.renderer.streams.values(), self.vocoder.now_ns)
                wake_ns = self.vocoder.now_ns + (S // 2 if wait_ns is None else max(1, wait_ns))
                self.vocoder.now_ns = min([wake_ns, *(at_ns for at_ns in self.next_ns if at_ns > self.vocoder.now_ns)])
            if report := self.renderer.load():
                self.sent.append(report)

    def push(self, key: int) -> None:
        """Send the next frames of a stream."""
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
        reports = [message.stats for message in self.sent if isinstance(message, ipc.Load)]
        return [report for report in reports if isinstance(report, ipc.EngineLoad)]

    def levels(self) -> list[object]:
        """The levels that were reported, each once for every time it began."""
        levels = [load.level for load in self.loads]
        return [level for before, level in zip([None, *levels], levels) if level != before]
