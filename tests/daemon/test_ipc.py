"""The messages between the processes: each survives encoding, and whatever a client may request can be sent on."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon import ipc, wire
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.codec import LocalError
from glowd.daemon.wire.fields import Message
from tests.harness.router import RouterHarness, mel_message, voice_info

KEY, NS = 1_760_000_000_000_000, 9_000_000_000_000_000
"""Keys count microseconds since 1970; clocks count nanoseconds."""
AUDIO = np.linspace(-1.5, 1.5, 7, dtype=np.float32)
MEL = np.linspace(-11.5, 2, 15, dtype=np.float32).reshape(5, 3)
EXAMPLES: list[Message] = [
    ipc.Start(KEY, wire.MAX_INDEX, 40, 0.8, 4, 1234.000000000001),
    ipc.Frames(KEY, 40, 5, 3, NS, NS + 1, MEL),
    ipc.Finish(KEY),
    ipc.Drop(KEY),
    ipc.DropAll(),
    ipc.Ready("glow", voice_info(), 7, "cuda:1", 2),
    ipc.Pcm(KEY, 10_240, 7, True, 45, NS, NS + 1, NS + 2, NS + 2, NS + 3, NS + 4, 2, AUDIO, 1234.000000000001),
    ipc.Failed(KEY, "RuntimeError: no memory"),
    ipc.Load(ipc.EngineLoad(streams=1, busy=0.5)),
    ipc.Load(ipc.SpeakerLoad(limited_samples=3)),
    ipc.Attach(KEY, 24_000, -6.0, 2205, 10_240, NS, "live", 4800),
    ipc.OutputRate(24_000),
    ipc.Pause(KEY),
    ipc.Resume(KEY),
    ipc.Gain(KEY, 3.5),
    ipc.Flush(KEY, 330),
    ipc.Detach(KEY),
    ipc.DetachAll(),
    ipc.DeviceReady("card", 48_000, 42.5, KEY),
    ipc.DeviceGone("it was unplugged", KEY),
    ipc.Position(KEY, 10_240, NS),
    ipc.Underrun(KEY, 10_240, 64, NS),
    ipc.Limited(KEY, 10_240, 1.5, 2),
    ipc.Played(KEY, 11_520, NS),
    ipc.Flushed(KEY, -1, 64),
]


def test_every_message_has_an_example() -> None:
    assert {type(message) for message in EXAMPLES} == set(ipc.CODEC.types.values())


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.TYPE)
def test_round_trip(message: Message) -> None:
    again = ipc.decode(ipc.encode(message))
    assert again == message and type(again) is type(message)


def test_client_message_is_refused() -> None:
    with pytest.raises(WireError) as caught:
        ipc.decode(wire.encode(wire.Hello("x")))
    assert caught.value.code is Code.UNKNOWN_TYPE
    with pytest.raises(LocalError, match="hello does not belong"):
        ipc.encode(wire.Hello("x"))


def test_minutes_of_audio_and_frames_fit() -> None:
    """A whole-utterance voice renders everything in one call."""
    samples, frames = 300 * 22_050, 300 * 87
    pcm = ipc.Pcm(KEY, 0, samples, audio=np.zeros(samples, np.float32))
    mels = ipc.Frames(KEY, 0, frames, 80, mel=np.zeros((frames, 80), np.float32))
    for message in (pcm, mels):
        assert ipc.decode(ipc.encode(message)).header() == message.header()


@pytest.mark.parametrize("samples", [6, 8])
def test_wrong_payload_length_is_refused(samples: int) -> None:
    header, payload = ipc.encode(EXAMPLES[6])
    changed = header.replace(b"\xa7samples\x07", b"\xa7samples" + bytes([samples]))
    assert changed != header
    with pytest.raises(WireError) as caught:
        ipc.decode([changed, payload])
    assert caught.value.code is Code.BAD_SHAPE


def test_failure_text_is_limited() -> None:
    ipc.encode(ipc.Failed(KEY, "x" * 500))
    with pytest.raises(LocalError, match=re.escape("failed.text")):
        ipc.encode(ipc.Failed(KEY, "x" * 501))


@given(
    seed=st.sampled_from([0, wire.MAX_INDEX]),
    gain_db=st.sampled_from([-120.0, 0.0, 24.0]),
    prefill_ms=st.sampled_from([-1, 0, 10_000]),
    sigma=st.sampled_from([-1.0, -0.25, 0.0, 2.0]),
    fade_ms=st.sampled_from([0, 1000]),
)
def test_every_allowed_request_can_be_sent_on(
    seed: int, gain_db: float, prefill_ms: int, sigma: float, fade_ms: int
) -> None:
    harness = RouterHarness()
    harness.connect(b"a")
    harness.open(b"a", "s", "device", seed=seed, gain_db=gain_db, prefill_ms=prefill_ms, sigma=sigma)
    harness.send(
        b"a", mel_message("s"), wire.Gain("s", -gain_db if gain_db > 0 else gain_db), wire.Flush("s", 0, fade_ms)
    )
    start, attach = harness.to_engine[0], harness.to_speaker[0]
    assert isinstance(start, ipc.Start) and isinstance(attach, ipc.Attach)
    assert (start.seed, attach.gain_db) == (seed, gain_db)
    assert start.sigma == sigma
