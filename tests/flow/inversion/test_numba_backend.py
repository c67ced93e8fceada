"""The compiled step gives what the step in torch gives; where it cannot be had, torch takes its place and says why."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from glowd.flow.checkpoint import load
from glowd.flow.inversion import numba_math, numba_matmul
from glowd.flow.inversion.inverter import MAX_WORKSPACES, Inverter
from glowd.flow.network.pitch import PitchConfig
from glowd.flow.network.source import SourceConfig
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from tests.harness.voices import hide_numba, random_voice, sourced, tiny

TOLERANCE = 1e-5
VIEWS_BYTES = 10_000
"""What the views of a step may take, without what they look at."""


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


def loud_voice(config: WaveGlowConfig) -> WaveGlow:
    """A random voice whose bounds are reached: its log-scales are large, and so is its sound."""
    voice = random_voice(config)
    with torch.no_grad():
        for flow in voice.flows:
            flow.coupling.wn.end.bias += 0.3  # type: ignore[operator,union-attr]
    return voice


def run(inverter: Inverter, batch: int, groups: int, calls: int = 3) -> tuple[Tensor, Tensor]:
    """Audio of some calls in a row, and the state that they leave, in one row for each stream."""
    random, config = torch.Generator().manual_seed(batch), inverter.config
    workspace, outputs = inverter.workspace(batch, groups), []
    frames = inverter.past_frames + max(1, groups // config.groups_per_frame) + inverter.look_ahead_frames
    for _ in range(calls):
        z = torch.randn(batch, groups, config.group, generator=random)
        windows = torch.randn(batch, frames, config.mel.n_mels, generator=random) - 5.6
        with torch.inference_mode():
            outputs.append(inverter.invert(windows, z, workspace).clone())
    state = [getattr(workspace.state, field.name).reshape(batch, -1) for field in fields(workspace.state)]
    return torch.stack(outputs), torch.cat(state, 1)


GEOMETRIES: list[WaveGlowConfig] = [
    tiny(),
    tiny(channels=11, layers=1, cond_channels=5),  # no column of a product fills a vector
    tiny(channels=48, kernel=5, layers=2),  # columns in vectors, and in wide tiles with a remainder
    tiny(channels=96, flows=1),
    tiny(squeeze="polyphase", group=64, look_ahead_frames=2, mel_scale=False),
    tiny(scale_bound=0.1, mel_scale_bound=0.5, mel_highest=-5.0, limiter_knee=0.05),
    sourced(),
    sourced(source=SourceConfig(2000, 9, 4, 128, PitchConfig(0, 7, 0, 20)), look_ahead_frames=3, kernel=5),
]


@pytest.mark.parametrize("config", GEOMETRIES)
@pytest.mark.parametrize(("batch", "groups"), [(1, 1), (1, 4), (2, 17), (3, 8), (1, 64)])
def test_it_gives_what_torch_gives(config: WaveGlowConfig, batch: int, groups: int) -> None:
    (audio, state), (expected, expected_state) = (run(i, batch, groups) for i in both(loud_voice(config)))
    torch.testing.assert_close(audio, expected, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(state, expected_state, rtol=TOLERANCE, atol=TOLERANCE)


def test_published_geometry_gives_what_torch_gives() -> None:
    voice = loud_voice(tiny(squeeze="polyphase", group=8, early_size=2, conditioning="upsample", mel_scale=False))
    (audio, state), (expected, expected_state) = (run(i, 2, 32) for i in both(voice))
    torch.testing.assert_close(audio, expected, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(state, expected_state, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_threads_that_share_a_batch_change_nothing(batch: int, two_threads: None) -> None:
    (audio, state), (expected, expected_state) = (run(i, batch, 8) for i in both(random_voice(sourced())))
    torch.testing.assert_close(audio, expected, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(state, expected_state, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("rows", [1, 4, 5, 16, 17])
@pytest.mark.parametrize("columns", [2, 16, 48, 64, 96, 128, 192])
def test_weights_that_halves_hold_give_the_same_bits(rows: int, columns: int) -> None:
    """They are kept as halves, which is a matter of memory alone; sums do not depend on the rows beside them."""
    torch.manual_seed(columns)
    weights, a = torch.randn(40, columns).half().float(), torch.randn(rows, 48).numpy()
    halves, floats = numba_matmul.packed(weights), numba_matmul.packed(weights + 2**-20)
    assert halves.dtype == (np.uint16 if columns % 16 == 0 and numba_matmul.HALVES else np.float32)
    assert floats.dtype == np.float32
    whole = numba_matmul.packed(weights).view(np.float16).astype(np.float32) if halves.dtype == np.uint16 else halves
    found, expected, alone = (np.ones((rows, columns + 3), np.float32) for _ in range(3))
    numba_matmul.accumulate(a, 5, halves, 2, 30, found, 3)
    numba_matmul.accumulate(a, 5, whole, 2, 30, expected, 3)
    for row in range(rows):
        numba_matmul.accumulate(a[row : row + 1], 5, halves, 2, 30, alone[row : row + 1], 3)
    assert np.array_equal(found, expected) and np.array_equal(found, alone) and (found[:, :3] == 1).all()
    np.testing.assert_allclose(found[:, 3:], 1 + a[:, 5:35] @ weights[2:32].numpy(), rtol=1e-5, atol=1e-5)
    double = np.ones((rows, columns))
    numba_matmul.accumulate(a.astype(np.float64), 5, numba_matmul.packed(weights, [16]), 2, 30, double, 0)
    exact = 1 + a[:, 5:35].astype(np.float64) @ weights[2:32].double().numpy()
    np.testing.assert_allclose(double, exact, rtol=1e-13, atol=1e-13)


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


def test_steps_of_more_shapes_take_no_more_memory() -> None:
    inverter = Inverter(random_voice(sourced()), backend="compiled")
    run(inverter, 4, 64)
    for batch in (1, 2, 3):
        run(inverter, batch, 4)
    tracemalloc.start()
    for batch in (1, 2, 3, 4):
        for groups in range(1, 33):
            run(inverter, batch, groups, calls=1)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < MAX_WORKSPACES * VIEWS_BYTES, f"{held} bytes are held for 128 shapes"


def test_its_exponential_is_that_of_numpy() -> None:
    @numba.njit
    def each(values: Any, results: Any) -> None:
        for i in range(len(values)):
            results[i] = numba_math.exp(values[i])

    values = np.linspace(-86, 86, 100_001, dtype=np.float32)
    results = np.zeros_like(values)
    each(values, results)
    np.testing.assert_allclose(results, np.exp(values.astype(np.float64)), rtol=5e-7)
    beyond = np.array([-1e4, 1e4], np.float32)
    each(beyond, results)
    assert results[0] < 1e-37 and 1e37 < results[1] < np.inf


def test_its_exponential_in_float64_is_that_of_numpy() -> None:
    @numba.njit
    def each(values: Any, results: Any) -> None:
        for i in range(len(values)):
            results[i] = numba_math.exp64(values[i])

    values = np.linspace(-699, 699, 100_001)
    results = np.zeros_like(values)
    each(values, results)
    np.testing.assert_allclose(results, np.exp(values), rtol=1e-15)


def test_its_sine_is_that_of_numpy() -> None:
    @numba.njit
    def each(values: Any, results: Any) -> None:
        for i in range(len(values)):
            results[i] = numba_math.sin_half_turns(values[i])

    values = np.linspace(-90, 90, 100_001, dtype=np.float32)
    results = np.zeros_like(values)
    each(values, results)
    np.testing.assert_allclose(results, np.sin(np.pi * values.astype(np.float64)), atol=2e-7)
    small = np.array([-1e-6, 0, 1e-9], np.float32)
    each(small, results)
    np.testing.assert_allclose(results[:3], np.pi * small, rtol=1e-6)


def test_auto_is_compiled_for_the_embedded_voice() -> None:
    assert Inverter(load("embedded")).backend == "compiled"


def test_without_numba_torch_takes_its_place_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_numba(monkeypatch)
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
