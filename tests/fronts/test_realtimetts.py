"""RealtimeTTS speaks through glowd, without a sound device; a text can be stopped in the middle."""

import queue
import threading
import time

import numpy as np
import pytest
from RealtimeTTS import TextToAudioStream

from glowd.clients.plugins.realtimetts import GlowEngine

TEXT = "This engine speaks through the daemon."


def samples_of(engine: GlowEngine) -> np.ndarray:
    """What the engine has queued."""
    parts = []
    while True:
        try:
            parts.append(np.frombuffer(engine.queue.get_nowait(), "<i2"))
        except queue.Empty:
            return np.concatenate(parts) if parts else np.zeros(0, "<i2")


def test_realtimetts_stream_plays_a_text(endpoint: str) -> None:
    engine, heard = GlowEngine(endpoint=endpoint, tts="espeak-ng"), list[bytes]()
    stream = TextToAudioStream(engine, muted=True)
    stream.feed(TEXT)
    stream.play(on_audio_chunk=heard.append, muted=True)
    samples = np.frombuffer(b"".join(heard), "<i2")
    assert 1.0 < len(samples) / 24_000 < 6 and np.abs(samples).max() > 1000
    engine.shutdown()


def test_realtimetts_stop_ends_a_text_in_the_middle(endpoint: str) -> None:
    engine = GlowEngine(endpoint=endpoint, tts="espeak-ng")
    results: list[bool] = []
    speaking = threading.Thread(target=lambda: results.append(engine.synthesize(" ".join([TEXT] * 100))))
    speaking.start()
    assert engine.queue.get(timeout=60)
    engine.stop_synthesis_event.set()
    speaking.join(60)
    assert results == [False] and len(samples_of(engine)) / 24_000 < 100  # of about 200
    engine.shutdown()


def test_realtimetts_voices_are_the_daemons(endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = GlowEngine(endpoint=endpoint, tts="espeak-ng")
    assert "glow" in engine.get_voices()
    engine.set_voice("nobody")
    began = time.monotonic()
    assert engine.synthesize(TEXT) is False and time.monotonic() - began < 60
    assert "nobody" in caplog.text
    engine.shutdown()
