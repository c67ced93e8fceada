"""The settings of voices: each kind of [voices.NAME] table declared once (flow/options.py).

Rules: as in config.py. What a voice does with a setting is not known here.
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from glowd.flow.options import BACKENDS, PRECISIONS, Options, option

MAX_ENGINES = 64
LABEL = re.compile(r"[A-Za-z0-9._/-]+=[^=,]+")
EMBEDDED = "embedded"  # the checkpoint that ships with glowd: a word, not a path


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceSettings(Options):
    """What every [voices.NAME] table has. Each of `devices` has an engine process of its own."""

    DEVICES: ClassVar[str] = "cpu"
    DEVICE: ClassVar[re.Pattern[str]] = re.compile(r"cpu")

    engine: str = option("", "the kind of voice")
    default: bool = option(False, "the voice of streams that name none; if no voice is the default, the first one is")
    devices: tuple[str, ...] = option(
        ("cpu",), "one engine process for each entry; this kind runs on the CPU only", min=0, max=MAX_ENGINES
    )
    threads: int = option(
        1,
        "CPU threads of each engine, which share the streams of a step; only waveglow uses more than one",
        min=1,
        max=256,
    )
    max_streams: int = option(
        0, "streams at once in each engine; 0: as many as this machine keeps up with, measured at the start",
        min=0, max=1024,
    )  # fmt: skip
    chunk_frames: int = option(
        4, "mel frames in the smallest step: few give a short latency, many a low load", min=1, max=512
    )
    max_chunk_frames: int = option(
        16,
        "mel frames in the largest step, used when frames queue up; under overload chunk_frames grows up to it",
        min=1,
        max=512,
    )
    max_batch: int = option(16, "streams in one step", min=1, max=1024)
    max_wait_ms: float = option(
        60.0, "ms that a stream with fewer frames than chunk_frames waits for more", min=0, max=1000
    )
    cluster_min: int = option(
        0, "engines that Ray runs of this voice at least, besides devices", min=0, max=MAX_ENGINES
    )
    cluster_max: int = option(0, "engines that Ray runs of this voice at most; 0: none", min=0, max=MAX_ENGINES)
    cluster_cpus: float = option(1.0, "cores that each of them takes of a node, as Ray counts", min=0, max=256)
    cluster_gpus: float = option(0.0, "GPUs that each of them takes of a node; 0.25: four share one", min=0, max=64)
    cluster_labels: tuple[str, ...] = option(
        (), 'labels that a node must have for them, such as "accelerator-type=H100"', max=16
    )
    cluster_per_host: int = option(1, "as many of them are placed on one node together", min=1, max=MAX_ENGINES)

    def check(self) -> None:
        """Raises OptionError where settings contradict one another."""
        most = self.max_chunk_frames
        self.require("chunk_frames", self.chunk_frames <= most, f"at most max_chunk_frames = {most}")
        is_known = all(self.DEVICE.fullmatch(device) for device in self.devices)
        self.require("devices", is_known, f"a list whose entries are each {self.DEVICES}")
        self._check_cluster()

    def _check_cluster(self) -> None:
        least = self.cluster_min
        self.require("cluster_max", self.cluster_max >= least, f"at least cluster_min = {least}")
        self.require("cluster_gpus", self.cluster_gpus <= 1 or self.cluster_gpus.is_integer(), "a whole number above 1")
        is_known = all(LABEL.fullmatch(label) for label in self.cluster_labels)
        self.require(
            "cluster_labels", is_known, 'a list whose entries are each "NAME=VALUE", as the nodes were given them'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveGlowSettings(VoiceSettings):
    """A [voices.NAME] table with engine = "waveglow"."""

    DEVICES: ClassVar[str] = "auto, cpu, cuda or cuda:N"
    DEVICE: ClassVar[re.Pattern[str]] = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d?))?")

    engine: str = option("waveglow", "the kind of voice: waveglow, rtisi-la or griffinlim")
    checkpoint: str = option(
        EMBEDDED, 'a .safetensors file written by glowlab, or "embedded": the voice that ships with glowd'
    )
    devices: tuple[str, ...] = option(
        ("auto",), "one engine process for each entry: cpu, cuda:N, cuda (cuda:0), or auto: cuda:0 if there is one, else cpu",
        min=0, max=MAX_ENGINES,
    )  # fmt: skip
    backend: str = option(
        "auto", "what computes the network: compiled (causal voices on a CPU), torch, triton (CUDA; not yet timed), "
        "or auto: compiled if possible, else torch", choices=BACKENDS,
    )  # fmt: skip
    precision: str = option(
        "auto",
        "precision of the convolutions: float32, bf16, or auto: bf16 on CUDA, float32 on a CPU",
        choices=PRECISIONS,
    )
    sigma: float = option(
        -1.0,
        "spread of the latent noise, 0 to 2: lower is clearer, higher has more breath; -1: the checkpoint's own",
        min=-1,
        max=2,
    )
    context_frames: int = option(
        24, "mel frames of past around each chunk, for non-causal checkpoints only", min=0, max=512
    )
    look_ahead_frames: int = option(
        8, "mel frames of future around each chunk, for non-causal checkpoints only: more latency, less error",
        min=0, max=512,
    )  # fmt: skip
    crossfade_samples: int = option(
        256, "samples over which two chunks are crossfaded, for non-causal checkpoints only", min=0, max=8192
    )

    def check(self) -> None:
        """Raises OptionError where settings contradict one another."""
        VoiceSettings.check(self)
        self.require("sigma", self.sigma == -1 or self.sigma >= 0, "-1 (the checkpoint's own) or from 0 to 2")
        on_cuda = any(device.startswith("cuda") for device in self.devices)
        self.require(
            "backend",
            self.backend != "compiled" or not (on_cuda or self.precision == "bf16"),
            f"auto or torch with devices = {list(self.devices)} and precision = {self.precision!r}, because compiled "
            "runs in float32 on a CPU",
        )
        self.require(
            "backend",
            self.backend != "triton" or "cpu" not in self.devices,
            f"auto or torch with devices = {list(self.devices)}, because triton runs on CUDA",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RtisiSettings(VoiceSettings):
    """A [voices.NAME] table with engine = "rtisi-la"."""

    engine: str = option("rtisi-la", "no network: recovers the phase by iteration while frames arrive; heard live")
    mel: str = option("glowd", "mel format of its frames, and so its rate: a name that `glowctl formats` lists")
    look_ahead_frames: int = option(
        2, "mel frames of future that a frame's phase takes into account, besides the 2 that overlap it", min=0, max=16
    )
    iterations: int = option(
        16, "iterations of phase recovery for each frame: more are slower and slightly clearer", min=1, max=200
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GriffinLimSettings(VoiceSettings):
    """A [voices.NAME] table with engine = "griffinlim"."""

    engine: str = option("griffinlim", "no network: recovers the phase by iteration; heard when the utterance ends")
    mel: str = option("glowd", "mel format of its frames, and so its rate: a name that `glowctl formats` lists")
    iterations: int = option(60, "iterations of phase recovery", min=1, max=1000)
    max_streams: int = option(0, "streams at once in each engine; 0: no limit but server.max_streams", min=0, max=1024)


def rendered(voice: VoiceSettings) -> dict[str, Any]:
    """The settings of a voice that its engines know: not which voice is the default, nor how many engines Ray runs."""
    return {key: value for key, value in voice.to_dict().items() if key != "default" and not key.startswith("cluster_")}


ENGINES: dict[str, type[VoiceSettings]] = {
    "waveglow": WaveGlowSettings,
    "rtisi-la": RtisiSettings,
    "griffinlim": GriffinLimSettings,
}
