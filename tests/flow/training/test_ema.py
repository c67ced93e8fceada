"""The moving average of the weights."""

import pytest
import torch

from glowd.flow.training.ema import Ema
from tests.harness.voices import random_voice, tiny


def test_early_average_forgets_fast_and_late_one_decays() -> None:
    zero, one = random_voice(tiny()), random_voice(tiny())
    with torch.no_grad():
        for parameters, value in ((zero.parameters(), 0.0), (one.parameters(), 1.0)):
            for parameter in parameters:
                parameter.fill_(value)
    for steps, keep in ((1, 2 / 21), (10**6, 0.9)):
        ema = Ema(zero, decay=0.9)
        ema.update(one, steps)
        assert all(p.flatten()[0].item() == pytest.approx(1 - keep) for p in ema.network.parameters())


def test_average_is_a_copy_without_gradients() -> None:
    network = random_voice(tiny())
    ema = Ema(network, decay=0.5)
    with torch.no_grad():
        next(network.parameters()).add_(1)
    assert not torch.equal(next(network.parameters()), next(ema.network.parameters()))
    assert not any(parameter.requires_grad for parameter in ema.network.parameters()) and not ema.network.training
