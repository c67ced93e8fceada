"""The systems that are compared: each has a name and turns a mel into samples. Real audio is the one that needs no mel.

Rules: a `System` is plain data that is sent to worker processes, which `build` it there. A new vocoder without a network is
one line in VOCODERS; a new kind of network is one entry in `of_checkpoint`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from glowd.flow import checkpoint
from glowd.flow.mel import Floats, MelFormat
from glowd.flow.network.registry import Network
from glowd.flow.network.wavenet import WaveNet, WaveNetConfig
from glowd.flow.network.wavenet_sampling import sample
from glowd.flow.phase_recovery.griffin_lim import GriffinLimVocoder
from glowd.flow.phase_recovery.rtisi import RtisiVocoder
from glowd.flow.streaming import ChunkPlan, VocoderOptions, stream_vocoder, whole
from glowd.flow.vocoder import AnyVocoder, render

Renderer = Callable[[Floats, int], Floats]
"""Mel [L, M] and a seed to samples [L * hop]."""

REAL, GRIFFIN_LIM, RTISI_LA = "Real audio", "Griffin-Lim", "RTISI-LA"
WAVENET, WAVEGLOW, STREAMED = "WaveNet", "WaveGlow", "WaveGlow streamed"
VOCODERS: dict[str, Callable[[MelFormat], AnyVocoder]] = {GRIFFIN_LIM: GriffinLimVocoder, RTISI_LA: RtisiVocoder}
"""Vocoders without a network, by name."""


@dataclass(frozen=True, slots=True)
class System:
    """What renders. Hashable, and small enough to send to another process."""

    kind: str
    """REAL, a name in VOCODERS, or the kind of a checkpoint."""
    checkpoint: str = ""
    title: str = ""
    """Distinguishes two checkpoints of one kind."""
    sigma: float | None = None
    """Spread of the latents; None where there are none, or for the voice's own."""
    chunk_frames: int = 4
    """Frames in a chunk of a streamed system."""

    @property
    def name(self) -> str:
        """For tables: unique among the systems of one comparison."""
        parts = [self.kind, self.title and f"({self.title})", "" if self.sigma is None else f"sigma {self.sigma:g}"]
        return " ".join(part for part in parts if part)

    @property
    def seeded(self) -> bool:
        """Whether another seed is another signal."""
        return self.kind != REAL

    @property
    def offline(self) -> "System | None":
        """The system that renders the same latents as a whole, for one that streams."""
        return replace(self, kind=WAVEGLOW) if self.kind == STREAMED else None


def classical() -> list[System]:
    """The systems that need no checkpoint, real audio among them."""
    return [System(REAL), *(System(name) for name in VOCODERS)]


def of_checkpoint(path: str, sigmas: list[float], chunk_frames: int, title: str = "") -> list[System]:
    """The systems of a checkpoint: a WaveGlow offline at each sigma and streamed at its own, or a WaveNet at its own
    temperature. Raises CheckpointError."""
    config = checkpoint.read_any_header(path)[0]
    if isinstance(config, WaveNetConfig):
        return [System(WAVENET, path, title)]
    own = config.sigma
    offline = [System(WAVEGLOW, path, title, sigma) for sigma in sigmas or [own]]
    return [*offline, System(STREAMED, path, title, own, chunk_frames)]


def systems_of(checkpoints: Sequence[str], sigmas: list[float], chunk_frames: int) -> list[System]:
    """Real audio, the vocoders without a network, then the systems of each checkpoint, which is a file or TITLE=FILE.

    Two networks of a kind that have no title get the names of their files. Raises ValueError.
    """
    named = [_titled(text) for text in checkpoints]
    kinds = [type(checkpoint.read_any_header(path)[0]) for _, path in named]
    titles = [title or (Path(path).stem if kinds.count(kind) > 1 else "") for (title, path), kind in zip(named, kinds)]
    made = [of_checkpoint(path, sigmas, chunk_frames, title) for title, (_, path) in zip(titles, named)]
    systems = [*classical(), *(system for some in made for system in some)]
    if len({system.name for system in systems}) == len(systems):
        return systems
    raise ValueError("two checkpoints have the same name, so a table cannot distinguish them; give them as TITLE=FILE")


def _titled(text: str) -> tuple[str, str]:
    """TITLE=FILE in two parts; the title is empty where there is none, or where the whole names a file."""
    title, equals, path = text.partition("=")
    return (title, path) if equals and not Path(text).exists() else ("", text)


def format_of(systems: Sequence[System]) -> MelFormat:
    """The mel format of all of them. Raises ValueError if two checkpoints have different ones."""
    found = {s.checkpoint: checkpoint.read_any_header(s.checkpoint)[0].mel for s in systems if s.checkpoint}
    if len(set(found.values())) > 1:
        raise ValueError(f"{' and '.join(found)} have different mel formats; evaluate them separately")
    return next(iter(found.values()), MelFormat())


def group_of(systems: Sequence[System]) -> int:
    """G of the first network among them; every system is searched for its comb. 64 if there is no network."""
    return next((checkpoint.read_header(s.checkpoint)[0].group for s in systems if s.kind in (WAVEGLOW, STREAMED)), 64)


@cache
def network(path: str) -> Network:
    """The network of a checkpoint, loaded once in each process. Raises CheckpointError."""
    return checkpoint.load_any(path)


@cache
def build(system: System, format: MelFormat) -> Renderer:
    """Load what a system needs to render; once in each process. REAL cannot be built: its samples are the recording's."""
    if system.kind in VOCODERS:
        vocoder = VOCODERS[system.kind](format)
        return lambda mel, seed: render(vocoder, mel, seed)
    voice = network(system.checkpoint)
    if isinstance(voice, WaveNet):
        return lambda mel, seed: sample(voice, [mel], seed)[0]
    if system.kind == WAVEGLOW:
        return lambda mel, seed: whole(voice, mel, seed, system.sigma)
    assert system.kind == STREAMED, system
    streaming = stream_vocoder(voice, ChunkPlan(), VocoderOptions(slots=1))
    return lambda mel, seed: render(streaming, mel, seed, system.chunk_frames, system.sigma)
