"""The card of a voice: what its checkpoint says about data, training and measurements, as plain values."""

from typing import Any

from glowd.flow.training.curve import thinned
from glowd.flow.training.trainer import Trainer


def voice_card(trainer: Trainer) -> dict[str, Any]:
    """The card of the voice that a trainer would export now."""
    settings, clips, test, points = trainer.settings, trainer.clips, trainer.validation.clips, trainer.curve.points
    return {
        "name": settings.name,
        "licence": settings.licence,
        "data": {"folder": clips.folder.name, "clips": clips.count, "seconds": round(clips.seconds)},
        "validation_data": {"folder": test.folder.name, "clips": test.count},
        "training": _training(trainer) | _spectral(trainer),
        "nll_nats_per_sample": round(points[-1].validation, 4) if points else None,
        "curve": thinned(points),
    } | ({"origin": trainer.origin} if trainer.origin else {})


def _training(trainer: Trainer) -> dict[str, Any]:
    settings = trainer.settings
    return {
        "objective": settings.objective,
        "steps": trainer.steps,
        "minutes": round(trainer.seconds / 60, 1),
        "batch": settings.batch,
        "segment_samples": settings.segment_samples,
        "colour": settings.colour,
        "pace": settings.pace,
        "lr": settings.lr,
        "seed": settings.seed,
        "device": trainer.device.type,
        "precision": "bf16" if trainer.bf16 else "float32",
    }


def _spectral(trainer: Trainer) -> dict[str, Any]:
    settings, latents = trainer.settings, trainer.latents
    if not latents:
        return {}
    return {
        "nll_weight": settings.nll_weight,
        "spectral_weight": settings.spectral_weight,
        "mel_weight": settings.mel_weight,
        "spectral_samples": latents.samples,
        "spectral_sigma": latents.sigma,
    }
