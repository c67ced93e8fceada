"""The training loop: steps, and at intervals validation, checkpoints, samples and a line of text.

Rules: `Trainer` is the state, `RunFolder` the files; this file decides when. A run that was killed and resumed computes the
same numbers as one that was not.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from tqdm import tqdm

from glowd.flow.training.card import voice_card
from glowd.flow.training.curve import Point
from glowd.flow.training.interrupt import Interrupt
from glowd.flow.training.plot import can_draw, curve_png
from glowd.flow.training.run_folder import RunFolder
from glowd.flow.training.samples import sample_sentences
from glowd.flow.training.settings import TrainError
from glowd.flow.training.trainer import Trainer


class _Progress:
    """The progress bar of a run. Its rate is audio trained on per second of steps, without validation."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._first_step, self._stepping_s = trainer.steps, 0.0
        bar_format = "{percentage:3.0f}% |{bar:20}| step {n_fmt}/{total_fmt}, {remaining} left{postfix}"
        hidden = None if trainer.world.is_leader else True  # None: hidden where the output is no terminal
        self.bar = tqdm(initial=trainer.steps, total=trainer.settings.steps, bar_format=bar_format, disable=hidden)

    @property
    def audio_rate(self) -> float:
        """Seconds of audio per second."""
        trained = (self.trainer.steps - self._first_step) * self.trainer.settings.batch
        seconds = trained * self.trainer.settings.segment_samples / self.trainer.config.mel.rate_hz
        return seconds / self._stepping_s if self._stepping_s else 0.0

    def stepped(self, seconds: float) -> None:
        """After one step, which took `seconds`."""
        trainer = self.trainer
        self._stepping_s += seconds
        trainer.seconds += seconds
        if not trainer.settings.steps:
            self.bar.total = max(trainer.steps, round(trainer.steps / max(trainer.progress, 1e-6)))
        if losses := trainer.curve.losses:
            self.bar.set_postfix_str(f"nll {losses[-1]:.3f}, {self.audio_rate:.1f} audio-s/s", refresh=False)
        self.bar.update()

    def line(self, point: Point) -> str:
        """A point of the curve as a line of text."""
        spectral = "" if point.spectral is None else f"spectral {point.spectral:.4f} "
        return (
            f"step {point.step} {point.seconds:.0f} s: train {point.train:.4f} validation {point.validation:.4f} {spectral}"
            f"lr {point.lr:.1e} {self.audio_rate:.1f} audio-s/s"
        )


def train(trainer: Trainer, folder: RunFolder, report: Callable[[str], None] = tqdm.write) -> bool:
    """Run to the end of the settings' steps or minutes; False if an interrupt ended it before.

    A point of the curve, the state and the voice are written every `every` steps and at the end, rendered sentences every
    `samples_every`; `report` gets a line for each point. Raises TrainError if the loss is not finite or a write fails; the
    last state written is intact then.
    """
    progress = _Progress(trainer)
    report = trainer.world.leader_only(report)
    if not can_draw():
        report("no picture of the curve will be drawn; for one: pip install 'glowd[plots]'")
    with Interrupt() as interrupt, progress.bar:
        if folder.saved_step is None:
            folder.save(trainer.state_dict())
        while not _must_stop(trainer, interrupt):
            began = time.monotonic()
            _step(trainer)
            progress.stepped(time.monotonic() - began)
            if trainer.steps % trainer.settings.every == 0:
                _write_point(trainer, folder, lambda point: report(progress.line(point)))
            if trainer.settings.samples_every and trainer.steps % trainer.settings.samples_every == 0:
                _write_samples(trainer, folder)
        if trainer.progress < 1:
            folder.save(trainer.state_dict())
        elif not trainer.curve.points or trainer.curve.points[-1].step != trainer.steps:
            _write_point(trainer, folder, lambda point: report(progress.line(point)))
    return trainer.progress >= 1


def _must_stop(trainer: Trainer, interrupt: Interrupt) -> bool:
    """Whether the run is over or interrupted. Processes that train together agree on it, and on the time that has passed."""
    trainer.seconds, requested = trainer.world.max(trainer.seconds, interrupt.requested)
    return trainer.progress >= 1 or bool(requested)


def _step(trainer: Trainer) -> None:
    try:
        trainer.step()
    except torch.OutOfMemoryError as error:
        settings = trainer.settings
        size = f"--batch {settings.batch} x --segment {settings.segment_samples}"
        raise TrainError(f"{trainer.device} has too little memory for {size}; lower one of them") from error


def _write_point(trainer: Trainer, folder: RunFolder, report: Callable[[Point], None]) -> None:
    with _timed(trainer):
        report(trainer.validate_and_record())
        # The voice first: a run that is killed between the two resumes before this point and writes it again.
        folder.export(trainer.config, trainer.ema.network.state_dict(), voice_card(trainer))
        folder.save(trainer.state_dict())
        if can_draw() and trainer.world.is_leader:
            folder.write_picture(curve_png(trainer.curve.points))


def _write_samples(trainer: Trainer, folder: RunFolder) -> None:
    with _timed(trainer):
        if trainer.world.is_leader:
            sentences = sample_sentences(trainer.ema.network, trainer.validation.clips)
            folder.write_samples(trainer.steps, sentences, trainer.config.mel.rate_hz)


@contextmanager
def _timed(trainer: Trainer) -> Iterator[None]:
    """Counts the time inside as time of the run."""
    began = time.monotonic()
    yield
    trainer.seconds += time.monotonic() - began
