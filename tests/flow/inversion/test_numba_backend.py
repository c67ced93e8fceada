"""The compiled step gives what the step in torch gives; where it cannot be had, torch takes its place and says why."""

import sys
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from glowd.flow.checkpoint import load
from glowd.flow.inversion import numba_backend
from glowd.flow.inversion.inverter import Inverter
from glowd.flow.network.waveglow import WaveGlow
from tests.harness.voices import random_voice, tiny

TOLERANCE = 1e-5


@pytest.fixture
def two_threads() -> Iterator[None]:
    """What torch may use, and so what a step shares a batch among."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def both(voice: WaveGlow) -> tuple[Inverter, Inverter]:
    pair = Inverter(voice, backend="compiled"), Inverter(voice, backend="torch")
    assert [inverter.backend for inverter in pair] == ["compiled", "torch"]
    return pair


def run(inverter: Inverter, batch: int, groups: int, calls: int = 3) -> tuple[Tensor, Tensor]:
    """Outputs of some calls in a row, and the state that they leave."""
    random, config = torch.Generator().manual_seed(batch), inverter.config
    workspace, outputs = inverter.workspace(batch, groups), []
    for _ in range(calls):
        z = torch.randn(batch, groups, config.group, generator=random)
        cond = torch.randn(batch, groups, config.cond_channels, generator=random)
        with torch.inference_mode():
            outputs.append(workspace.flows(z, cond).clone())
    return torch.stack(outputs), workspace.state.past


GEOMETRIES: list[dict[str, Any]] = [
    dict(),
    dict(channels=11, layers=1, cond_channels=5),  # no column of a product fills a vector
    dict(channels=48, kernel=5, layers=2),  # columns in vectors, and in wide tiles with a remainder
    dict(channels=96, flows=1),
    dict(squeeze="polyphase", group=8, early_size=2, conditioning="upsample", mel_scale=False),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(("batch", "groups"), [(1, 1), (1, 4), (2, 17), (3, 6), (1, 64)])
def test_it_gives_what_torch_gives(geometry: dict[str, Any], batch: int, groups: int) -> None:
    (audio, past), (expected, expected_past) = (run(i, batch, groups) for i in both(random_voice(tiny(**geometry))))
    torch.testing.assert_close(audio, expected, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(past, expected_past, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_threads_that_share_a_batch_change_nothing(batch: int, two_threads: None) -> None:
    (audio, past), (expected, expected_past) = (run(i, batch, 8) for i in both(random_voice(tiny())))
    torch.testing.assert_close(audio, expected, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(past, expected_past, rtol=TOLERANCE, atol=TOLERANCE)


def test_its_answer_is_not_overwritten_by_the_next_call() -> None:
    voice = random_voice(tiny(squeeze="polyphase", mel_scale=False))
    inverter = Inverter(voice, backend="compiled")
    workspace, z = inverter.workspace(1, 4), torch.ones(1, 4, 64)
    windows = torch.zeros(1, inverter.past_frames + 1 + inverter.look_ahead_frames, 80)
    with torch.inference_mode():
        first = inverter.invert(windows, z, workspace)
        kept = first.clone()
        inverter.invert(windows, 2 * z, workspace)
    assert torch.equal(first, kept) and torch.equal(z, torch.ones(1, 4, 64))


def test_its_exponential_is_that_of_numpy() -> None:
    @numba.njit
    def each(values: Any, results: Any) -> None:
        for i in range(len(values)):
            results[i] = numba_backend._exp(values[i])

    values = np.linspace(-86, 86, 100_001, dtype=np.float32)
    results = np.zeros_like(values)
    each(values, results)
    np.testing.assert_allclose(results, np.exp(values.astype(np.float64)), rtol=5e-7)
    beyond = np.array([-1e4, 1e4], np.float32)
    each(beyond, results)
    assert results[0] < 1e-37 and 1e37 < results[1] < np.inf


def test_auto_is_compiled_for_the_embedded_voice() -> None:
    assert Inverter(load("embedded")).backend == "compiled"


def test_without_numba_torch_takes_its_place_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "glowd.flow.inversion.numba_backend")
    monkeypatch.delattr("glowd.flow.inversion.numba_backend")
    monkeypatch.setitem(sys.modules, "numba", None)
    voice = random_voice(tiny())
    inverter = Inverter(voice)
    assert inverter.backend == "torch" and "numba cannot be imported" in inverter.why_torch
    with pytest.raises(ValueError, match="backend is 'compiled', which this voice cannot have here: numba"):
        Inverter(voice, backend="compiled")


def test_voices_that_cannot_be_compiled_run_in_torch() -> None:
    assert "only causal voices" in Inverter(random_voice(tiny(causal=False))).why_torch
    assert "only causal voices in float32" in Inverter(random_voice(tiny()), dtype=torch.bfloat16).why_torch
    assert Inverter(random_voice(tiny()), backend="torch").why_torch == "the configuration asks for it"
    with pytest.raises(ValueError, match="backend is 'fast'; allowed: auto, compiled, torch, triton"):
        Inverter(random_voice(tiny()), backend="fast")
