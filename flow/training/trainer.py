"""A network in training: one step, and the state that the next step depends on.

Rules: any kind of network, any device, one code path; touches no file. Muon moves the convolutions (all weights with three
dimensions, except the last layers' `end`, which start at zero), AdamW the rest. The moving average of the weights is what is
validated and exported.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from glowd.flow.devices import wants_bf16
from glowd.flow.network.registry import Config, Network, build, kind_of
from glowd.flow.training.curve import Curve, Point
from glowd.flow.training.data import Clips, Segments
from glowd.flow.training.distributed import ALONE, World
from glowd.flow.training.ema import Ema
from glowd.flow.training.muon import Muon
from glowd.flow.training.objective import Latents, Objective
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.validation import Validation

MUON_RATIO = 10.0
"""Learning rate of Muon over that of AdamW: an orthogonal update has another length."""
PITCH = "pitch."
"""What the names of a pitch network's weights begin with, in those of its voice."""
MOST_LEFT_OUT = 50
"""Steps in a row that may be left out before a run is given up."""
CHECK_EVERY_ON_CUDA = 10
"""Steps between two checks of the loss; each check waits for the device."""


def optimisers(network: Network, lr: float) -> list[tuple[torch.optim.Optimizer, float]]:
    """The optimisers of what a network learns here, each with its share of the learning rate."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 3 and "end" not in name.split(".")]
    rest = [p for name, p in named if p.ndim != 3 or "end" in name.split(".")]
    adamw = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    return [(adamw, 1.0), (Muon(matrices, lr=MUON_RATIO * lr), MUON_RATIO)]


class Trainer:
    """A run's state, and its step. All that the next step depends on is in `state_dict`, so a run resumes exactly."""

    def __init__(self, settings: Settings, config: Config, clips: Clips, test: Clips, world: World = ALONE) -> None:
        self.settings, self.config, self.clips, self.world = settings, config, clips, world
        self.bf16 = wants_bf16(settings.precision, self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.voice = build(config).to(self.device)
        self.ema = Ema(self.voice, settings.average)
        self.optimisers = optimisers(self.voice, settings.lr)
        share = world.share(settings.batch)
        self.segments = Segments(
            clips, settings.batch, settings.seed, share, settings.colour, settings.pace, settings.weights
        )
        self.latents: Latents | None = None
        """Of the samples in the loss, where there are any."""
        if settings.spectral_weight:
            self.latents = Latents(self.voice, settings, self.device, settings.seed + 2, share)
        self.validation = Validation(test, settings, self.bf16)
        self._objective = world.parallel(Objective(self.voice, settings))
        self.steps, self.seconds, self.curve = 0, 0.0, Curve()
        self.origin: dict[str, Any] = {}
        """What the run began with, for the card: the checkpoint, the pitch network; empty for random weights."""
        self._unchecked: list[Tensor] = []
        self.left_out = torch.zeros((), dtype=torch.int64, device=self.device)
        """Steps in a row that were left out (skip_norm)."""

    @property
    def device(self) -> torch.device:
        """Where the clips are, and the network."""
        return self.clips.audio.device

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self.settings.learning_rate(self.steps, self.progress)

    @property
    def progress(self) -> float:
        """Share of the run that is over, 0 to 1."""
        return self.settings.progress(self.steps, self.seconds)

    def start_from(self, voice: Network, origin: dict[str, Any]) -> None:
        """Begin with given weights of the same geometry instead of random ones; the pitch network stays what it is."""
        weights = {key: value for key, value in voice.state_dict().items() if not key.startswith(PITCH)}
        for network in (self.voice, self.ema.network):
            network.load_state_dict(network.state_dict() | weights)
        self.origin = origin

    def use_pitch(self, weights: dict[str, Tensor]) -> None:
        """Give the voice its pitch network, which training leaves as it is: the one that locked the phases of the clips."""
        for network in (self.voice, self.ema.network):
            network.load_state_dict(network.state_dict() | {PITCH + key: value for key, value in weights.items()})

    def step(self) -> None:
        """One batch. Raises TrainError if a loss is not finite (on CUDA up to CHECK_EVERY_ON_CUDA steps later)."""
        latent = self.latents.next(self.settings.batch) if self.latents else None
        loss, nll = self._objective(self.segments.next(), latent, self.bf16)
        self.voice.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.voice.parameters(), self.settings.clip_norm)
        if self.settings.skip_norm:
            nll, norm = self._leave_out(nll, norm)
        self._update_weights()
        self.steps += 1
        self.ema.update(self.voice, self.steps)
        # A gradient that is not finite spoils the weights even where the loss is finite.
        self._unchecked.append(torch.stack([nll.detach(), norm]))
        if self.device.type != "cuda" or self.steps % CHECK_EVERY_ON_CUDA == 0:
            self.check_finite()

    def _leave_out(self, nll: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
        """Take no gradient from a step where it is too long: one such step may spoil a run that it took hours to make.

        Returns what is recorded of the step. Waits for no device.
        """
        kept = norm <= self.settings.skip_norm  # false for NaN; the same in all processes that train together
        for parameter in self.voice.parameters():
            if parameter.grad is not None:
                parameter.grad = torch.where(kept, parameter.grad, 0)
        self.left_out = torch.where(kept, 0, self.left_out + 1)
        return torch.where(kept, nll, torch.nan), torch.where(kept, norm, 0)

    def _update_weights(self) -> None:
        lr = self.lr
        for optimiser, ratio in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = ratio * lr
            optimiser.step()

    def check_finite(self) -> None:
        """Fetch the losses of the steps not checked yet. Raises TrainError if one is not finite."""
        if not self._unchecked:
            return
        fetched, self._unchecked = self.world.mean(torch.stack(self._unchecked)).tolist(), []
        if self.settings.skip_norm:
            fetched = self._taken(fetched)
        for step, (nll, norm) in enumerate(fetched, self.steps - len(fetched) + 1):
            if not (math.isfinite(nll) and math.isfinite(norm)):
                raise TrainError(f"step {step} gave a likelihood of {nll} and a gradient of {norm}; try a lower --lr")
        self.curve.losses += [nll for nll, _ in fetched]

    def _taken(self, fetched: list[list[float]]) -> list[list[float]]:
        """Likelihoods and gradients of the steps that were not left out. Raises TrainError if too many were."""
        if (count := int(self.left_out)) > MOST_LEFT_OUT:
            raise TrainError(
                f"{count} steps in a row, up to step {self.steps}, had gradients longer than {self.settings.skip_norm:g} "
                "(--skip-norm); try a lower --lr"
            )
        return [[nll, norm] for nll, norm in fetched if not math.isnan(nll)]

    def validate_and_record(self) -> Point:
        """Add a point to the curve. Raises TrainError if a likelihood is not finite."""
        self.check_finite()
        nll, spectral = self.validation.nll(self.ema.network), self.validation.spectral(self.ema.network)
        if not math.isfinite(nll):
            raise TrainError(f"the validation likelihood of step {self.steps} is {nll}; try a lower --lr")
        point = Point(self.steps, round(self.seconds, 3), self.curve.mean_loss, nll, self.lr, spectral)
        self.curve.add(point)
        return point

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly: plain values and tensors."""
        self.check_finite()
        return {
            "kind": kind_of(self.config),
            "config": self.config.to_dict(),
            "settings": self.settings.to_dict(),
            "step": self.steps,
            "seconds": self.seconds,
            "origin": self.origin,
            "clips": self.clips.count,
            "voice": self.voice.state_dict(),
            "average": self.ema.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser, _ in self.optimisers],
            "segments": self.segments.state_dict(),
            "latents": self.latents.state_dict() if self.latents else None,
        } | self.curve.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken. The trainer must have been made with the state's geometry."""
        self.steps, self.seconds, self.origin = state["step"], state["seconds"], state["origin"]
        self.curve.load_state_dict(state)
        self.voice.load_state_dict(state["voice"])
        self.ema.network.load_state_dict(state["average"])
        for (optimiser, _), saved in zip(self.optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        self.segments.load_state_dict(state["segments"])
        # A run may be resumed with a spectral term that it did not have before.
        if self.latents and (latents := state.get("latents")):
            self.latents.load_state_dict(latents)
