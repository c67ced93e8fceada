"""One message of every type for the tests, with values that show each field, and strategies for random ones."""

import dataclasses
from typing import Any

import numpy as np
from hypothesis import strategies as st

from glowd.daemon import wire
from glowd.daemon.wire.fields import Message

MEL_3 = np.linspace(-11.5, 2.0, 240, dtype=np.float32).reshape(3, 80)
FORMAT = {"rate_hz": 22050, "n_fft": 1024, "hop": 256, "win": 1024, "n_mels": 80, "fmin_hz": 0.0, "fmax_hz": 8000.0}
VOICE = {
    "name": "glow", "rate_hz": 22050, "hop": 256, "format": FORMAT, "look_ahead_frames": 2, "latency_ms": 29.0,
    "whole_utterance": False, "default": True,
}  # fmt: skip
STAMPS = {"client": 5_000_000, "gateway_in": 5_100_000, "net_start": 5_200_000, "net_end": 9_000_000}

EXAMPLES: list[Message] = [
    wire.Hello("my-tts", 1, 1, 4_000_000),
    wire.Open("s1", "glow", FORMAT, ["device", "socket", "file:take-1"], 7, -3.0, 80, 0.8),
    wire.mel_message("s1", 0, 2, 64, MEL_3, t_client_ns=5_000_000),
    wire.End("s1", 0, 67),
    wire.Flush("s1", 0, 15),
    wire.Pause("s1"),
    wire.Resume("s1"),
    wire.Gain("s1", -6.0),
    wire.Close("s1"),
    wire.Bye(),
    wire.Ping(6_000_000),
    wire.Listen("*"),
    wire.Unlisten("*"),
    wire.Status(),
    wire.Engine("glow/0", "drain"),
    wire.Welcome(1, "glowd 0.1.0", [VOICE], ["device", "socket"], {"max_chunk_frames": 512}, 4, 5),
    wire.Opened("s1", "glow", 22050, 256, 172, 0),
    wire.Credit("s1", 0, 16),
    wire.Position("s1", 2, 1_790_000_000_000_001, 40_960, 112, 116, 0.1 + 0.2, 7_000_000, 1),
    wire.Audio("s1", 0, 4, 1024, 4, "f32", 22050, True, False, STAMPS, np.array([0, 0.5, -0.5, 1], np.float32)),
    wire.Flushed("s1", 0, 4095, 12_800),
    wire.Played("s1", 0, 17_152, 0),
    wire.State("s1", "playing", {"queued_frames": 12, "ttfa_ms": None}),
    wire.Error(302, "NOT_FINITE", "mel payload holds NaN or Inf, first at index 3", "s1", 0, False, 64),
    wire.Warning(600, "MEL_SCALE", "values of -4.99..0.55 look like log10; state format log10", "s1", 0, 0),
    wire.Pong(6_000_000, 6_050_000),
]
S16 = np.array([0, 16384, -32767, 1], np.float32) / np.float32(32767)
ADDED: dict[str, Message] = {
    "open_audio": wire.Open("s1", audio_rate_hz=16_000, audio_dtype="s16", catch_up="live", max_lead_ms=400),
    "open_going_on": wire.Open(
        "s1",
        seed=7,
        position_ms=50,
        generation=2,
        key=1_790_000_000_000_001,
        samples=40_960,
        first_frame=112,
        start_frame=116,
        phase=0.1 + 0.2,
        t_ns=7_000_000,
        underruns=1,
        paused=True,
    ),
    "open_after": wire.Open("s2", after="s1"),
    "listen_audio": wire.Listen("*", 8_000, "s16"),
    "opened_audio": wire.Opened("s1", "glow", 22050, 256, 172, 0, 16_000, 39.9),
    "audio_s16": wire.Audio("s1", 0, 4, 743, 4, "s16", 16_000, True, False, {}, S16, 39.9),
}
"""Fields that were added, by the names of their golden files."""
F16_MEL = wire.mel_message("s1", 0, 2, 64, MEL_3, dtype="f16", t_client_ns=5_000_000)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
names = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
FIELD_STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "sinks": st.lists(st.sampled_from(["device", "socket", "null", "file:a.b"]), min_size=1, max_size=8),
    "format": st.dictionaries(st.text(max_size=8), st.integers(0, 9) | st.text(max_size=5), max_size=4),
    "limits": st.dictionaries(st.text(max_size=8), st.integers(0, 9), max_size=4),
    "info": st.dictionaries(st.text(max_size=8), plain, max_size=4),
    "voices": st.lists(st.fixed_dictionaries({"name": names, "rate_hz": st.integers(1, 9)}), max_size=3),
    "stamps": st.dictionaries(names, st.integers(0, 2**62), max_size=6),
    "dtype": st.just("f32"), "frames": st.integers(1, 5), "bins": st.integers(1, 5), "samples": st.integers(0, 9),
}  # fmt: skip
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(0, 2**31), "float": st.floats(-1, 1), "bool": st.booleans(), "str": names,
}  # fmt: skip


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any message a peer may send."""
    cls = draw(st.sampled_from(wire.CLIENT_MESSAGES + wire.DAEMON_MESSAGES))
    values: dict[str, Any] = {}
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        if item.name in cls.FIELDS:
            kind = getattr(item.type, "__name__", str(item.type))
            values[item.name] = draw(FIELD_STRATEGIES.get(item.name, BY_TYPE.get(kind, st.nothing())))
            if not cls.FIELDS[item.name].accepts(values[item.name]):  # a narrower range than the type's
                values[item.name] = getattr(next(m for m in EXAMPLES if type(m) is cls), item.name)
    if cls.PAYLOAD is not None:
        shape = tuple(values[str(axis)] for axis in cls.PAYLOAD.shape)
        values[cls.PAYLOAD.name] = draw(
            st.floats(-20, 20, width=32).map(lambda v: np.full(shape, v, np.float32) * np.float32(0.5))
        )
    return cls(**values)
