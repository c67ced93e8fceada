"""Training a voice: one step, the average of the weights, validation, and the loop around them.

Rules: any kind of network, any device, one code path. `Trainer` is the state and touches no file; `train` is the loop, which
saves, reports and stops. A run that was killed and resumed goes through the same numbers as one that was not.

Muon moves the convolutions (all weights with three dimensions but the last layers', `end`, which start at zero), AdamW the
rest. What is validated and exported is the moving average of the weights.
"""

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from glowd.flow.mel import Floats
from glowd.flow.network.registry import Config, Network, build, kind_of
from glowd.flow.training.data import Clips, Segments, fixed_segments
from glowd.flow.training.distributed import ALONE, World
from glowd.flow.training.interrupt import Interrupt
from glowd.flow.training.muon import Muon
from glowd.flow.training.objective import Latents, Objective, validation_distance
from glowd.flow.training.plot import can_draw, curve_png
from glowd.flow.training.run_folder import Point, RunFolder, thinned
from glowd.flow.training.samples import speak
from glowd.flow.training.settings import MUON_RATIO, Settings, TrainError, wants_bf16

WATCH_EVERY_ON_CUDA = 10
"""Steps between two looks at the loss: each look waits for the device."""


def optimisers(voice: Network, lr: float) -> list[tuple[torch.optim.Optimizer, float]]:
    """The optimisers of a network's parameters, each with its share of the learning rate."""
    named = list(voice.named_parameters())
    matrices = [p for name, p in named if p.ndim == 3 and "end" not in name.split(".")]
    rest = [p for name, p in named if p.ndim != 3 or "end" in name.split(".")]
    adamw = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    return [(adamw, 1.0), (Muon(matrices, lr=MUON_RATIO * lr), MUON_RATIO)]


class Trainer:
    """A network in training. All that the next step depends on is here and in `state_dict`."""

    def __init__(self, settings: Settings, config: Config, clips: Clips, test: Clips, world: World = ALONE) -> None:
        self.settings, self.config, self.clips, self.test, self.world = settings, config, clips, test, world
        self.device = clips.audio.device
        self.bf16 = wants_bf16(settings.precision, self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.voice = build(config).to(self.device)
        self.average = copy.deepcopy(self.voice).requires_grad_(False).eval()
        self.optimisers = optimisers(self.voice, settings.lr)
        self._share = world.share(settings.batch)
        self.segments = Segments(clips, settings.batch, settings.seed, self._share, settings.colour)
        self._fixed = fixed_segments(test, settings.validation_segments)
        self._objective = world.parallel(Objective(self.voice, settings))
        self._latents: Latents | None = None
        if settings.spectral_weight:
            self._latents = Latents(self.voice, settings, self.device, settings.seed + 2)
        self.steps, self.seconds = 0, 0.0
        self.curve: list[Point] = []
        self.origin: dict[str, Any] = {}
        """Where the first weights came from, if not from chance; part of the card."""
        self.losses: list[float] = []
        """Of the steps since the last point of the curve."""
        self._unseen: list[Tensor] = []

    def start_from(self, voice: Network, origin: dict[str, Any]) -> None:
        """Begin with given weights of the same geometry instead of random ones."""
        for mine in (self.voice, self.average):
            mine.load_state_dict(voice.state_dict())
        self.origin = origin

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self.settings.learning_rate(self.steps, self.progress)

    @property
    def progress(self) -> float:
        """How much of the run is over, 0 to 1."""
        return self.settings.progress(self.steps, self.seconds)

    def step(self) -> None:
        """One batch. Raises TrainError when the loss is not finite (on CUDA up to WATCH_EVERY_ON_CUDA steps later)."""
        lr = self.lr
        audio, mel = self.segments.next()
        z = self._latents.next(self.settings.batch, self._share) if self._latents else None
        loss, nll = self._objective(audio, mel, z, self.bf16)
        self.voice.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.voice.parameters(), self.settings.clip_norm)
        for optimiser, ratio in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = ratio * lr
            optimiser.step()
        self.steps += 1
        self._follow()
        # A gradient that is not finite spoils the weights even where the loss is fine.
        self._unseen.append(torch.stack([nll.detach(), norm]))
        if self.device.type != "cuda" or self.steps % WATCH_EVERY_ON_CUDA == 0:
            self.look()

    @torch.no_grad()
    def _follow(self) -> None:
        # Young averages forget fast: the first weights are no voice.
        keep = min(self.settings.average, (self.steps + 1) / (self.steps + 20))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.voice.parameters()), 1 - keep)

    def look(self) -> None:
        """Fetch the losses not seen yet. Raises TrainError if one is not finite: the weights are spoilt then."""
        if not self._unseen:
            return
        seen, self._unseen = self.world.mean(torch.stack(self._unseen)).tolist(), []
        for i, (loss, norm) in enumerate(seen):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                step = self.steps - len(seen) + i + 1
                raise TrainError(f"step {step} gave a likelihood of {loss} and a gradient of {norm}; try a lower --lr")
        self.losses += [loss for loss, _ in seen]

    @torch.no_grad()
    def validate(self) -> float:
        """NLL of the averaged weights on the fixed segments, in nats per sample."""
        sizes = [len(audio) for audio, _ in self._fixed]
        losses = [self.average.nll(audio, mel, self.bf16).item() for audio, mel in self._fixed]
        return sum(n * loss for n, loss in zip(sizes, losses)) / sum(sizes)

    def validate_spectral(self) -> float | None:
        """Spectral distance of the averaged weights' samples from the fixed segments; None if it is no part of the loss."""
        if not self.settings.spectral_weight:
            return None
        return validation_distance(self.average, self._fixed, self.settings, self.bf16)

    def mark(self) -> Point:
        """Validate and add a point to the curve. Raises TrainError if a likelihood is not finite."""
        self.look()
        train, validation = sum(self.losses) / max(1, len(self.losses)), self.validate()
        if not math.isfinite(validation):
            raise TrainError(f"the validation likelihood of step {self.steps} is {validation}; try a lower --lr")
        spectral = self.validate_spectral()
        self.curve.append(Point(self.steps, round(self.seconds, 3), train, validation, self.lr, spectral))
        self.losses = []
        return self.curve[-1]

    def speak(self) -> dict[str, Floats]:
        """A few whole validation sentences as the averaged weights say them: name -> samples [T]."""
        return speak(self.average, self.test)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly: plain values and tensors."""
        self.look()
        return {
            "kind": kind_of(self.config),
            "config": self.config.to_dict(),
            "settings": self.settings.to_dict(),
            "step": self.steps,
            "seconds": self.seconds,
            "curve": [list(point) for point in self.curve],
            "losses": self.losses,
            "origin": self.origin,
            "clips": self.clips.count,
            "voice": self.voice.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser, _ in self.optimisers],
            "segments": self.segments.state_dict(),
            "latents": self._latents.state_dict() if self._latents else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken. The trainer must have been made with the state's geometry."""
        self.steps, self.seconds = state["step"], state["seconds"]
        self.curve, self.losses = [Point(*point) for point in state["curve"]], list(state["losses"])
        self.origin = state["origin"]
        self.voice.load_state_dict(state["voice"])
        self.average.load_state_dict(state["average"])
        for (optimiser, _), saved in zip(self.optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        self.segments.load_state_dict(state["segments"])
        # A run may be resumed with a spectral part that it did not have before.
        if self._latents and (latents := state.get("latents")):
            self._latents.load_state_dict(latents)

    def card(self) -> dict[str, Any]:
        """What the exported voice says of itself."""
        settings = self.settings
        return {
            "name": settings.name,
            "licence": settings.licence,
            "data": {"folder": self.clips.folder.name, "clips": self.clips.count, "seconds": round(self.clips.seconds)},
            "validation_data": {"folder": self.test.folder.name, "clips": self.test.count},
            "training": {
                "objective": settings.objective,
                "steps": self.steps,
                "minutes": round(self.seconds / 60, 1),
                "batch": settings.batch,
                "segment_samples": settings.segment_samples,
                "colour": settings.colour,
                "lr": settings.lr,
                "seed": settings.seed,
                "device": self.device.type,
                "precision": "bf16" if self.bf16 else "float32",
            }
            | self._spectral_card(),
            "nll_nats_per_sample": round(self.curve[-1].validation, 4) if self.curve else None,
            "curve": thinned(self.curve),
        } | ({"origin": self.origin} if self.origin else {})

    def _spectral_card(self) -> dict[str, Any]:
        if not self._latents:
            return {}
        weights = {"nll_weight": self.settings.nll_weight, "spectral_weight": self.settings.spectral_weight}
        weights |= {"mel_weight": self.settings.mel_weight}
        return weights | {"spectral_samples": self._latents.samples, "spectral_sigma": self._latents.sigma}


class _Progress:
    """The bar of a run, and its clock: audio trained on per second of steps, leaving out validation."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._first_step, self._stepping_s = trainer.steps, 0.0
        bar_format = "{percentage:3.0f}% |{bar:20}| step {n_fmt}/{total_fmt}, {remaining} left{postfix}"
        hidden = None if trainer.world.leads else True  # None: hidden where nobody looks
        self.bar = tqdm(initial=trainer.steps, total=trainer.settings.steps, bar_format=bar_format, disable=hidden)

    @property
    def audio_rate(self) -> float:
        """Seconds of audio per second."""
        trained = (self.trainer.steps - self._first_step) * self.trainer.settings.batch
        seconds = trained * self.trainer.settings.segment_samples / self.trainer.config.mel.rate_hz
        return seconds / self._stepping_s if self._stepping_s else 0.0

    def stepped(self, seconds: float) -> None:
        """After one step that took so long."""
        trainer = self.trainer
        self._stepping_s += seconds
        trainer.seconds += seconds
        if not trainer.settings.steps:
            self.bar.total = max(trainer.steps, round(trainer.steps / max(trainer.progress, 1e-6)))
        if trainer.losses:
            self.bar.set_postfix_str(f"nll {trainer.losses[-1]:.3f}, {self.audio_rate:.1f} audio-s/s", refresh=False)
        self.bar.update()

    def line(self, point: Point) -> str:
        """A point of the curve in words."""
        spectral = "" if point.spectral is None else f"spectral {point.spectral:.4f} "
        return (
            f"step {point.step} {point.seconds:.0f} s: train {point.train:.4f} validation {point.validation:.4f} {spectral}"
            f"lr {point.lr:.1e} {self.audio_rate:.1f} audio-s/s"
        )


def train(trainer: Trainer, folder: RunFolder, report: Callable[[str], None] = tqdm.write) -> bool:
    """Run to the end of the settings' steps or minutes; False if an interrupt ended it before.

    A point of the curve, the state and the voice are written every `every` steps and at the end, spoken sentences every
    `samples_every`; `report` gets a line for each point. Raises TrainError if the loss is not finite or a write fails; the
    last state written is intact then.
    """
    world, progress = trainer.world, _Progress(trainer)
    report = world.said(report)
    if not can_draw():
        report("no picture of the curve will be drawn; for one: pip install 'glowd[plots]'")
    with Interrupt() as interrupt, progress.bar:
        if folder.saved_step is None:
            folder.save(trainer.state_dict())
        while True:
            # Processes that train together stop together, and their learning rates fall by one clock.
            trainer.seconds, requested = world.largest(trainer.seconds, interrupt.requested)
            if trainer.progress >= 1 or requested:
                break
            began = time.monotonic()
            _step(trainer)
            progress.stepped(time.monotonic() - began)
            if trainer.steps % trainer.settings.every == 0:
                _write_point(trainer, folder, lambda point: report(progress.line(point)))
            if trainer.settings.samples_every and trainer.steps % trainer.settings.samples_every == 0:
                _write_samples(trainer, folder)
        if trainer.progress < 1:
            folder.save(trainer.state_dict())
        elif not trainer.curve or trainer.curve[-1].step != trainer.steps:
            _write_point(trainer, folder, lambda point: report(progress.line(point)))
    return trainer.progress >= 1


def _step(trainer: Trainer) -> None:
    try:
        trainer.step()
    except torch.OutOfMemoryError as error:
        settings = trainer.settings
        size = f"--batch {settings.batch} x --segment {settings.segment_samples}"
        raise TrainError(f"{trainer.device} has too little memory for {size}; lower one of them") from error


def _write_point(trainer: Trainer, folder: RunFolder, report: Callable[[Point], None]) -> None:
    began = time.monotonic()
    report(trainer.mark())
    # The voice first: a run killed between the two comes back to this point and writes it again.
    folder.export(trainer.config, trainer.average.state_dict(), trainer.card())
    folder.save(trainer.state_dict())
    if can_draw() and trainer.world.leads:
        folder.write_picture(curve_png(trainer.curve))
    trainer.seconds += time.monotonic() - began


def _write_samples(trainer: Trainer, folder: RunFolder) -> None:
    began = time.monotonic()
    if trainer.world.leads:
        folder.write_samples(trainer.steps, trainer.speak(), trainer.config.mel.rate_hz)
    trainer.seconds += time.monotonic() - began
