"""What the streams of both clients show of their state.

Rules: reads the state and changes nothing.
"""

from glowd.clients.stream_state import StreamState
from glowd.daemon import wire


class StreamView:
    """What the streams of both clients show of their state; base class of client.Stream and aio.AsyncStream."""

    def __init__(self, state: StreamState) -> None:
        assert state.opened is not None, "the client waits for it"
        self._state = state
        self.name, self.voice = state.name, state.opened.voice
        self.rate_hz, self.hop = state.opened.rate_hz, state.opened.hop
        self.audio_rate_hz = state.opened.audio_rate_hz or self.rate_hz
        """Samples in a second of the audio that this client receives."""
        self.audio_latency_ms = state.opened.audio_latency_ms
        """How much later that audio comes because it is resampled."""

    @property
    def generation(self) -> int:
        """Number of the utterance that the next frames belong to."""
        return self._state.generation

    @property
    def credit_frames(self) -> int:
        """Frames that can be sent without waiting."""
        return self._state.queue.credit if self._state.queue else 0

    @property
    def heard_samples(self) -> int:
        """Samples of the running utterance that the listener has heard at least; the daemon says so every 50 ms."""
        return self._state.heard_samples

    @property
    def frames_taken(self) -> int:
        """Frames that belong to the running utterance: those of every `send` that returned, or was given up half way."""
        return self._state.queue.total_frames if self._state.queue else 0

    @property
    def warnings(self) -> list[wire.Warning]:
        """What the daemon has warned of, in order; each was logged too when it arrived (logger glowd.client)."""
        return list(self._state.warnings)

    @property
    def state(self) -> str:
        """The stream's state as the daemon last sent it: "playing", "starved", ..."""
        return self._state.daemon_state
