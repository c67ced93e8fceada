"""A run on two processes, by gloo on the CPU: the numbers of one process, one set of files, one clock, one end."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glowd.flow import checkpoint
from glowd.flow.mel import MelFormat
from glowd.flow.training.data import Segments, load_clips
from glowd.flow.training.distributed import ALONE, World
from glowd.flow.training.objective import Latents
from glowd.flow.training.run_folder import CURVE, PICTURE, STATE, VOICE, RunFolder
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.setup import new_run
from glowd.flow.training.train import train
from tests.harness.training import silent, small_settings
from tests.harness.voices import PLAIN, random_voice, tiny

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A run of 4 steps with both terms of the loss; its learning rate does not depend on its length."""
    return small_settings(
        tmp_path_factory, validation_segments=4, lr=2e-4, decay=0.0, spectral_weight=0.5, mel_weight=1.0, samples_every=2,
        device="cpu", precision="float32",
    )  # fmt: skip


def torchrun(*args: str) -> str:
    """What two processes print; they must succeed."""
    done = subprocess.run([*TORCHRUN, *args], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_give_the_numbers_of_one(settings: Settings, tmp_path: Path) -> None:
    voice, init, run_file = random_voice(tiny()), tmp_path / "init.safetensors", tmp_path / "run.toml"
    checkpoint.save(init, voice.config, voice.state_dict())
    table = replace(settings, steps=2).to_dict()
    run_file.write_text("[train]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()))
    command = ["-m", "glowd.flow.cli", "train", "--out", str(tmp_path / "two")]
    text = torchrun(*command, "--config", str(run_file), "--init", str(init))
    assert text.count("done after 2 steps") == 1 and text.count("training: 4 clips") == 1
    assert torchrun(*command, "--resume", "--steps", "4").count("going on from step 2") == 1

    folder = RunFolder(tmp_path / "one")
    one = new_run(folder, settings, {}, str(init), silent)
    assert train(one, folder, silent)
    two = RunFolder(tmp_path / "two").load()
    assert two["step"] == 4 and [point[0] for point in two["curve"]] == [2, 4]
    for mine, other in zip(one.curve.points, two["curve"]):
        # All but the seconds; sums in another order differ in their last bits, and the optimisers enlarge that.
        assert other[2:] == pytest.approx(list(mine[2:]), rel=1e-4, abs=1e-4)
    assert torch.equal(two["segments"]["picks"], one.state_dict()["segments"]["picks"])
    assert {path.name for path in (tmp_path / "two").iterdir()} == {CURVE, PICTURE, STATE, VOICE, "samples"}


APART = """
import os, signal, sys
from pathlib import Path
from glowd.flow.training.distributed import join
from glowd.flow.training.settings import Settings
from glowd.flow.training.setup import new_run
from glowd.flow.training.run_folder import RunFolder
from glowd.flow.training.train import train
with join() as world:
    folder = RunFolder(Path(sys.argv[1]), world.is_leader)
    trainer = new_run(folder, Settings.from_dict({settings}), {geometry}, "", lambda line: None, world)
    step = trainer.step
    def interrupted():
        step()
        trainer.seconds += world.rank
        if world.rank == 1 and trainer.steps == 3:
            os.kill(os.getpid(), signal.SIGINT)
    trainer.step = interrupted
    finished = train(trainer, folder, lambda line: None)
    print(f"rank {world.rank}: {finished} step {trainer.steps} lr {trainer.lr} at {trainer.seconds}\\n", end="", flush=True)
"""


def test_processes_stop_together_and_share_a_clock(settings: Settings, tmp_path: Path) -> None:
    # Only the second process is interrupted, and its clock runs fast.
    settings = replace(settings, steps=0, minutes=60.0, decay=1.0, every=100, samples_every=0)
    script = tmp_path / "apart.py"
    script.write_text(APART.replace("{settings}", repr(settings.to_dict())).replace("{geometry}", repr(PLAIN)))
    lines = sorted(torchrun(str(script), str(tmp_path / "out")).splitlines())
    said = [line.split(": ")[1] for line in lines]
    assert len(said) == 2 and said[0] == said[1] and said[0].startswith("False step 3 lr ")
    state = RunFolder(tmp_path / "out").load()
    assert state["step"] == 3 and state["seconds"] > 3


def test_shares_are_parts_of_one_batch(settings: Settings) -> None:
    clips = load_clips(Path(settings.data), MelFormat(), settings.segment_samples)
    worlds = [ALONE, World(0, 2), World(1, 2)]
    whole, first, second = (Segments(clips, 4, 0, world.share(4)) for world in worlds)
    voice = random_voice(tiny())
    latents = [Latents(voice, settings, torch.device("cpu"), 0, world.share(4)) for world in worlds]
    for _ in range(2):
        parts = zip(whole.next()[:2], first.next()[:2], second.next()[:2])
        assert all(torch.equal(both, torch.cat([a, b])) for both, a, b in parts)
        z, *shares = (each.next(4).z for each in latents)
        for samples, a, b in zip(z.chunk(2), *(share.chunk(2) for share in shares)):
            assert torch.equal(samples, torch.cat([a, b]))
    assert torch.equal(whole.state_dict()["picks"], second.state_dict()["picks"])


def test_indivisible_batch_or_fixed_device_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="batch is 4; allowed with 3 processes: multiples of 3"):
        new_run(RunFolder(tmp_path), settings, PLAIN, "", silent, World(0, 3))
    with pytest.raises(TrainError, match=r"--device is cpu:0; allowed with 2 processes: auto, cpu, cuda"):
        new_run(RunFolder(tmp_path), replace(settings, device="cpu:0"), PLAIN, "", silent, World(0, 2))


def test_only_the_leader_writes_and_reports(tmp_path: Path) -> None:
    lines: list[str] = []
    for world in (World(0, 2), World(1, 2)):
        world.leader_only(lines.append)(str(world.rank))
    assert lines == ["0"]
    folder = RunFolder(tmp_path / "out", writes=False)
    folder.prepare()
    folder.save({"step": 1, "curve": []})
    folder.export(tiny(), random_voice(tiny()).state_dict(), {})
    assert not (tmp_path / "out").exists()


def test_world_of_one_changes_nothing(settings: Settings) -> None:
    module = torch.nn.Linear(1, 1)
    assert ALONE.parallel(module) is module and ALONE.max(1.0, 0) == [1.0, 0]
    assert ALONE.mean(torch.ones(2)).tolist() == [1.0, 1.0] and ALONE.share(5) == slice(0, 5)
