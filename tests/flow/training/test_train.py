"""Training: the likelihood improves, a killed run resumes exactly, and no failure loses the last checkpoint."""

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from glowd.flow import checkpoint
from glowd.flow.mel import MelFormat, log_mel
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from glowd.flow.recordings import RecordingError
from glowd.flow.training.card import voice_card
from glowd.flow.training.curve import Point
from glowd.flow.training.data import load_clips
from glowd.flow.training.run_folder import CURVE, PICTURE, SAMPLES, STATE, VOICE, RunFolder
from glowd.flow.training.samples import sample_sentences
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.setup import new_run, resumed_run
from glowd.flow.training.train import train
from glowd.flow.training.trainer import Trainer, optimisers
from tests.harness.training import nll, silent, small_settings, start
from tests.harness.voices import PLAIN, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A run of 6 steps with a point of the curve every 3."""
    return small_settings(tmp_path_factory, steps=6, every=3, warm_up_steps=5)


def run(settings: Settings, out: Path) -> Trainer:
    """A new run to its end."""
    trainer, folder = start(settings, out)
    assert train(trainer, folder, silent)
    return trainer


def without_clock(curve: list[Point]) -> list[Point]:
    """The points but for their seconds."""
    return [point._replace(seconds=0.0) for point in curve]


def assert_same(a: Trainer, b: Trainer) -> None:
    """Two trainers have gone through the same numbers, and will."""
    assert a.steps == b.steps and without_clock(a.curve.points) == without_clock(b.curve.points)
    for mine, other in ((a.voice, b.voice), (a.ema.network, b.ema.network)):
        for x, y in zip(mine.parameters(), other.parameters()):
            assert torch.equal(x, y)
    a.step()
    b.step()
    assert a.curve.losses[-1] == b.curve.losses[-1]


PUBLISHED = WaveGlowConfig.stock(
    channels=16, flows=4, layers=3, cond_channels=16 * 8, upsample_kernel=512, mel=MelFormat(n_mels=16)
)


@pytest.mark.parametrize("config", [tiny(), PUBLISHED])
def test_likelihood_improves(settings: Settings, config: WaveGlowConfig) -> None:
    clips, test = (
        load_clips(Path(folder), config.mel, settings.segment_samples) for folder in (settings.data, settings.test)
    )
    trainer = Trainer(replace(settings, steps=40), config, clips, test)
    before = nll(trainer)
    for _ in range(30):
        trainer.step()
    # Both gain 2.3 nats per sample.
    assert nll(trainer) < before - 1.5
    losses = trainer.curve.losses
    assert sum(losses[-5:]) < sum(losses[:5]) - 5 * 1.5


def test_muon_gets_convolutions_and_adamw_the_rest() -> None:
    voice = WaveGlow(tiny())
    (adamw, _), (muon, ratio) = optimisers(voice, 1e-3)
    names = {id(p): name for name, p in voice.named_parameters()}
    moved = [{names[id(p)] for group in o.param_groups for p in group["params"]} for o in (adamw, muon)]
    assert moved[0] | moved[1] == set(names.values()) and not moved[0] & moved[1]
    assert "flows.0.mixing.weight" in moved[0] and "flows.0.coupling.wn.end.weight" in moved[0]
    assert "flows.0.coupling.wn.conv.0.weight" in moved[1] and "encoder.context.weight" in moved[1]
    assert ratio == 10 and muon.param_groups[0]["lr"] == pytest.approx(1e-2)


def test_run_writes_curve_state_and_voice(settings: Settings, tmp_path: Path) -> None:
    trainer = run(replace(settings, name="test", licence="CC0"), tmp_path)
    with (tmp_path / CURVE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "6"]
    assert float(rows[1]["validation"]) == trainer.curve.points[-1].validation and rows[1]["spectral"] == ""
    config, card = checkpoint.read_header(tmp_path / VOICE)
    assert config == tiny() and card["name"] == "test" and card["licence"] == "CC0"
    assert card["data"] == {"folder": "data", "clips": 4, "seconds": 4} and card["training"]["steps"] == 6
    assert card["nll_nats_per_sample"] == round(trainer.curve.points[-1].validation, 4) and len(card["curve"]) == 2
    voice, average = checkpoint.load(tmp_path / VOICE).state_dict(), trainer.ema.network.state_dict()
    assert all(torch.equal(voice[key], average[key].half().float()) for key in average)
    assert {path.name for path in tmp_path.iterdir()} == {CURVE, PICTURE, STATE, VOICE}


def test_run_without_matplotlib_reports_it(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glowd.flow.training.train.can_draw", lambda: False)
    trainer, folder = start(settings, tmp_path)
    lines: list[str] = []
    assert train(trainer, folder, lines.append)
    assert "pip install 'glowd[plots]'" in lines[0] and not (tmp_path / PICTURE).exists()


def test_run_renders_sentences_at_intervals(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / SAMPLES / "step-4.part").mkdir(parents=True)  # as a run that was killed would leave it
    trainer, folder = start(replace(settings, samples_every=2), tmp_path)
    assert train(trainer, folder, silent)
    assert sorted(path.name for path in (tmp_path / SAMPLES).iterdir()) == ["step-2", "step-4", "step-6"]
    assert sorted(path.name for path in (tmp_path / SAMPLES / "step-6").iterdir()) == ["1-clip0.wav", "2-clip1.wav"]
    samples, rate_hz = soundfile.read(tmp_path / SAMPLES / "step-6" / "2-clip1.wav", dtype="float32")
    spoken = sample_sentences(trainer.ema.network, trainer.validation.clips)["2-clip1"]
    assert rate_hz == 22050 and len(samples) == len(spoken) == 22050 // 256 * 256
    assert np.abs(samples - spoken.clip(-1, 1)).max() < 1e-4
    mel = log_mel(soundfile.read(Path(settings.test) / "clip1.flac", dtype="float32")[0][: len(samples)])[
        : len(samples) // 256
    ]
    assert np.array_equal(trainer.validation.clips.whole(1)[1].numpy().T, mel)


def test_unwritable_samples_leave_the_last_state(settings: Settings, tmp_path: Path) -> None:
    trainer, folder = start(replace(settings, samples_every=4), tmp_path)
    (tmp_path / SAMPLES).write_text("in the way")
    with pytest.raises(TrainError, match=r"cannot write .*step-4: .*state of step 3 is intact, go on with --resume"):
        train(trainer, folder, silent)
    assert resumed_run(RunFolder(tmp_path), {}, silent).steps == 3


def test_samples_are_written_whole_or_not_at_all(settings: Settings, tmp_path: Path) -> None:
    trainer, folder = start(settings, tmp_path)
    folder.save(trainer.state_dict())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(TrainError, match=r"cannot write .*step-0: .*state of step 0 is intact"):
            folder.write_samples(0, sample_sentences(trainer.ema.network, trainer.validation.clips), 22050)
        with pytest.raises(TrainError, match=r"cannot write .*curve\.png: .*too large"):
            folder.write_picture(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / SAMPLES).iterdir()) == [] and not (tmp_path / PICTURE).exists()


DIES = """
import os, signal, sys, torch
from pathlib import Path
from glowd.flow.training.settings import Settings
from glowd.flow.training.setup import new_run
from glowd.flow.training.run_folder import RunFolder
from glowd.flow.training.train import train
torch.set_num_threads(1)
folder = RunFolder(Path(sys.argv[1]))
trainer = new_run(folder, Settings.from_dict({settings}), {geometry}, "", lambda line: None)
step = trainer.step
def dying():
    step()
    if trainer.steps == 5:
        os.kill(os.getpid(), signal.SIGKILL)
trainer.step = dying
train(trainer, folder, lambda line: None)
"""


@pytest.mark.parametrize("spectral_weight", [0.0, 1.0])
def test_killed_run_resumes_exactly(settings: Settings, tmp_path: Path, spectral_weight: float) -> None:
    settings = replace(settings, spectral_weight=spectral_weight, pace=0.5 * spectral_weight)
    script = DIES.replace("{settings}", repr(settings.to_dict())).replace("{geometry}", repr(PLAIN))
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path / "killed")], timeout=600)
    assert died.returncode == -signal.SIGKILL
    folder = RunFolder(tmp_path / "killed")
    resumed = resumed_run(folder, {}, silent)
    assert resumed.steps == 3
    assert train(resumed, folder, silent)
    assert_same(resumed, run(settings, tmp_path / "straight"))


def test_interrupt_saves_and_stops(settings: Settings, tmp_path: Path) -> None:
    trainer, folder = start(settings, tmp_path / "stopped")
    step = trainer.step

    def interrupted() -> None:
        step()
        if trainer.steps == 4:
            os.kill(os.getpid(), signal.SIGINT)

    trainer.step = interrupted  # type: ignore[method-assign]
    handler = signal.getsignal(signal.SIGINT)
    assert not train(trainer, folder, silent)
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = resumed_run(folder, {}, silent)
    assert resumed.steps == 4
    assert train(resumed, folder, silent)
    assert_same(resumed, run(settings, tmp_path / "straight"))


def test_finished_run_can_be_extended(settings: Settings, tmp_path: Path) -> None:
    run(settings, tmp_path)
    folder = RunFolder(tmp_path)
    longer = resumed_run(folder, {"steps": 8}, silent)
    assert train(longer, folder, silent)
    assert [point.step for point in longer.curve.points] == [3, 6, 8]


def test_run_ends_after_its_minutes(settings: Settings, tmp_path: Path) -> None:
    trainer = run(replace(settings, steps=0, minutes=0.005, every=1000), tmp_path)
    assert trainer.steps >= 1 and trainer.seconds >= 0.3
    assert [point.step for point in trainer.curve.points] == [trainer.steps] and (tmp_path / VOICE).is_file()


def test_run_can_begin_with_a_checkpoint(settings: Settings, tmp_path: Path) -> None:
    parent = run(replace(settings, licence="CC0"), tmp_path / "parent")
    init = str(tmp_path / "parent" / VOICE)
    child = new_run(RunFolder(tmp_path / "child"), settings, {}, init, silent)
    assert child.config == parent.config and nll(child) == pytest.approx(nll(parent), abs=1e-3)
    origin = voice_card(child)["origin"]
    assert origin["checkpoint"] == VOICE and origin["card"]["licence"] == "CC0" and "curve" not in origin["card"]
    with pytest.raises(TrainError, match="its own geometry"):
        new_run(RunFolder(tmp_path / "other"), settings, {"layers": 2}, init, silent)


def test_infinite_loss_leaves_the_last_state(settings: Settings, tmp_path: Path) -> None:
    trainer, folder = start(settings, tmp_path)
    step = trainer.step

    def spoilt() -> None:
        if trainer.steps == 4:
            with torch.no_grad():
                next(trainer.voice.parameters()).fill_(float("nan"))
        step()

    trainer.step = spoilt  # type: ignore[method-assign]
    with pytest.raises(TrainError, match=r"step 5 gave a likelihood of nan.*lower --lr"):
        train(trainer, folder, silent)
    resumed = resumed_run(RunFolder(tmp_path), {}, silent)
    assert resumed.steps == 3
    assert all(p.isfinite().all() for p in [*resumed.voice.parameters(), *resumed.ema.network.parameters()])


def test_step_with_a_long_gradient_is_left_out(settings: Settings, tmp_path: Path) -> None:
    trainer, _ = start(replace(settings, skip_norm=1e9), tmp_path / "kept")
    trainer.step()
    before = [parameter.clone() for parameter in trainer.voice.parameters()]
    objective = trainer._objective

    def spoilt(*arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        loss, found = objective(*arguments)
        return loss * float("inf"), found

    trainer._objective = spoilt  # type: ignore[assignment]
    trainer.step()
    assert len(trainer.curve.losses) == 1 and trainer.steps == 2
    # Momentum moves on by itself, and nothing is lost.
    for old, new in zip(before, trainer.voice.parameters()):
        assert new.isfinite().all() and (new - old).abs().max() < 0.2
    with pytest.raises(
        TrainError, match=r"51 steps in a row, up to step 52, had gradients longer than 1e\+09.*lower --lr"
    ):
        for _ in range(60):
            trainer.step()


def test_full_disk_leaves_the_last_state(settings: Settings, tmp_path: Path) -> None:
    run(settings, tmp_path)
    folder = RunFolder(tmp_path)
    trainer = resumed_run(folder, {"steps": 9}, silent)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(
            TrainError, match=r"cannot write .*safetensors.*state of step 6 is intact, go on with --resume"
        ):
            train(trainer, folder, silent)
        with pytest.raises(TrainError, match=r"cannot write .*state\.pt: .*too large.*step 6 is intact"):
            folder.save(trainer.state_dict())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_run_is_not_overwritten_and_damage_is_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="holds no run to resume"):
        resumed_run(RunFolder(tmp_path), {}, silent)
    trainer, folder = start(settings, tmp_path)
    folder.save(trainer.state_dict())
    with pytest.raises(TrainError, match="already holds a run; add --resume"):
        start(settings, tmp_path)
    content = (tmp_path / STATE).read_bytes()
    for damaged in (b"", b"nonsense", content[: len(content) // 2]):
        (tmp_path / STATE).write_bytes(damaged)
        with pytest.raises(TrainError, match="is damaged"):
            resumed_run(RunFolder(tmp_path), {}, silent)


def test_changed_data_is_reported_and_loses_nothing(settings: Settings, tmp_path: Path) -> None:
    data = Path(shutil.copytree(settings.data, tmp_path / "data"))
    run(replace(settings, data=str(data)), tmp_path / "out")
    before = (tmp_path / "out" / STATE).read_bytes()
    (data / "clip0.flac").write_bytes(b"no sound")
    lines: list[str] = []
    assert resumed_run(RunFolder(tmp_path / "out"), {}, lines.append).steps == 6
    assert any("skipped: " in line and "clip0.flac is not a readable recording" in line for line in lines)
    assert "3 training clips, 4 before: the run goes on with other batches" in lines
    shutil.rmtree(data)
    with pytest.raises(RecordingError, match="does not exist"):
        resumed_run(RunFolder(tmp_path / "out"), {}, silent)
    assert (tmp_path / "out" / STATE).read_bytes() == before


def test_segment_of_partial_frames_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="--segment is 2000; allowed: multiples of the hop, 256"):
        start(replace(settings, segment_samples=2000), tmp_path)


def test_too_little_memory_is_reported(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, folder = start(settings, tmp_path)

    def full() -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(trainer, "step", full)
    with pytest.raises(TrainError, match="too little memory for --batch 4 x --segment 2048"):
        train(trainer, folder, silent)


def test_bf16_likelihood_is_near_float32(settings: Settings, tmp_path: Path) -> None:
    exact, _ = start(replace(settings, precision="float32"), tmp_path / "a")
    rough, _ = start(replace(settings, precision="bf16"), tmp_path / "b")
    assert rough.bf16 and nll(rough) == pytest.approx(nll(exact), abs=0.02)


def test_default_geometry_is_the_voice_with_a_source(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"needs a pitch network: make one with glowlab pitch.*preset = \"plain\""):
        new_run(RunFolder(tmp_path), settings, {}, "", silent)
