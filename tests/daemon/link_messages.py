"""Messages of the engine link whose bytes are kept, with values that show each field."""

import numpy as np

from glowd.daemon import engine_link, ipc
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Capacity, Degradation, VoiceInfo

KEY, NS = 1_760_000_000_000_000, 9_000_000_000_000_000
MEL = np.linspace(-11.5, 2, 15, dtype=np.float32).reshape(5, 3)
AUDIO = np.linspace(-1.5, 1.5, 7, dtype=np.float32)
CAPACITY = Capacity(streams=8, measured=True, share=0.5, chunk_ms=46.5, alone_ms=4.25, round_ms=21.5)
INFO = VoiceInfo(
    name="glow", rate_hz=22_050, hop=256, format={"rate_hz": 22_050, "hop": 256, "n_mels": 80, "fmax_hz": 8000.0},
    look_ahead_frames=1, latency_ms=11.75, whole_utterance=False, default=True, history_frames=94, lead_frames=2,
    capacity=CAPACITY,
)  # fmt: skip
LATE = Degradation(level=3, last_level=3, chunk_frames=16, refuses=True, since_ns=NS, reason="60% were late")
LOAD = ipc.EngineLoad(
    streams=3, busy=0.75, stolen=0.125, batches_per_s=21.5, audio_per_s=3.0, rss_bytes=1 << 28, late=0.625, level=3,
    degraded=LATE,
)  # fmt: skip

VERSION_1: dict[str, Message] = {
    "join": engine_link.Join(1, 1, "glow", "pool-1", KEY, "node-7", 16, 4, 16),
    "joined": engine_link.Joined(1, "glow/pool-1"),
    "turned_away": engine_link.TurnedAway("the key pool was revoked"),
    "leaving": engine_link.Leaving(),
    "dismissed": engine_link.Dismissed(),
    "start": ipc.Start(KEY, -7, 40, 0.75, 4, 1234.5, 2),
    "start_first": ipc.Start(KEY, 7, 0),
    "frames": ipc.Frames(KEY, 40, 5, 3, NS, NS + 1, MEL),
    "finish": ipc.Finish(KEY),
    "drop": ipc.Drop(KEY),
    "drop_all": ipc.DropAll(),
    "ready": ipc.Ready("glow", INFO, KEY, "cuda:1", 2, 3.5, "0123456789abcdef"),
    "ready_plain": ipc.Ready("glow", INFO, KEY),
    "pcm": ipc.Pcm(
        KEY, 10_240, 7, True, 45, NS, NS + 1, NS + 2, NS + 3, NS + 4, NS + 5, 2, AUDIO, 1234.5, 1.5, True, NS + 6, 1, 2,
        True, 3,
    ),
    "pcm_plain": ipc.Pcm(KEY, 0, 7, audio=AUDIO),
    "failed": ipc.Failed(KEY, "RuntimeError: no memory", 2),
    "load": ipc.Load(LOAD),
    "load_idle": ipc.Load(ipc.EngineLoad(streams=0, busy=0.0)),
}  # fmt: skip
"""Those that version 1 had, by the names of their files."""
VERSION_2: dict[str, Message] = {
    "probe": engine_link.Probe(NS),
    "echo": engine_link.Echo(NS, NS + 1, NS + 2, 3),
    "finish_at": ipc.Finish(KEY, NS),
}
"""Those that came with version 2."""
VERSION_3: dict[str, Message] = {
    "taken": engine_link.Taken("the daemon host:/run/glowd at 192.0.2.7"),
    "joined_by": engine_link.Joined(3, "glow/pool-1", "host:/run/glowd"),
}
"""Those that came with version 3."""
VERSION_4: dict[str, Message] = {"join_again": engine_link.JoinAgain()}
"""That which came with version 4."""
