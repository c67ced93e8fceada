"""`glowlab` as a user runs it: every command end to end; a mistake ends in one line and exit status 2."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from glowd.flow import checkpoint
from glowd.flow.cli import main
from glowd.flow.mel import log_mel
from glowd.flow.streaming import whole
from tests.harness.publishing import Geometry, random_weights
from tests.harness.recordings import voice_like, write_recordings
from tests.harness.voices import PLAIN, random_voice, tiny


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings, a causal voice and one that is not."""
    root = tmp_path_factory.mktemp("lab")
    write_recordings(root / "data", 3)
    for name, causal in (("causal", True), ("blind", False)):
        voice = random_voice(tiny(causal=causal))
        checkpoint.save(
            root / f"{name}.safetensors", voice.config, voice.state_dict(), {"name": name, "curve": [[1, 2]]}
        )
    return root


def assert_refused(capsys: pytest.CaptureFixture[str], argv: list[str], text: str) -> None:
    """The command ends with status 2 and one line that says `text`."""
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("glowlab: ") and error.count("\n") == 1 and text in error, error


def test_bench_measures_causal_and_other_voices(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("causal", "blind"):
        asked = ["--chunk-frames", "2", "4", "--streams", "1", "2", "--runs", "3", "--device", "cpu"]
        assert main(["bench", str(room / f"{name}.safetensors"), *asked]) == 0
        first, titles, *rows = capsys.readouterr().out.splitlines()
        assert f"torch {torch.__version__}, 1 threads, 3 runs after 50" in first and titles.split()[2] == "RTF"
        assert [row.split()[:3] for row in rows] == [[f, "fr", s] for s in "12" for f in "24"]
        assert all(float(row.split()[3]) > 0 for row in rows)
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--streams", "0"])
    assert ended.value.code == 2 and "'0' is not allowed; allowed: whole numbers" in capsys.readouterr().err


def test_train_end_to_end_writes_a_voice(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "glowd.flow.cli", "train", "--out", str(out), "--threads", "1"]
    begin = ["--data", str(room / "data"), "--test", str(room / "data"), "--steps", "4", "--every", "2", "--batch", "2"]
    begin += ["--segment", "2048", "--validation-segments", "4", "--config", json.dumps(PLAIN), "--licence", "CC0"]
    done = subprocess.run([*command, *begin], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "training: 3 clips" in done.stdout and "step 4 " in done.stdout and "done after 4 steps" in done.stdout
    assert checkpoint.read_header(out / "voice.safetensors")[1]["licence"] == "CC0"
    assert len((out / "curve.csv").read_text().splitlines()) == 3


def test_train_resumes_and_refuses_to_overwrite(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(room)
    run_file = tmp_path / "run.toml"
    geometry = "\n".join(f"{key} = {json.dumps(value)}" for key, value in PLAIN.items())
    run_file.write_text(
        f"[voice]\n{geometry}\n[train]\nsteps = 1\nbatch = 2\nsegment_samples = 2048\nvalidation_segments = 2\n"
    )
    out = ["--out", str(tmp_path / "out")]
    folders = ["--data", "data", "--test", "data"]
    assert main(["train", *out, *folders, "--config", str(run_file)]) == 0
    assert "done after 1 steps" in capsys.readouterr().out
    assert_refused(capsys, ["train", *out, *folders, "--config", str(run_file)], "already holds a run; add --resume")
    assert_refused(capsys, ["train", *out, "--resume", "--config", "{}"], "leave them out with --resume")
    monkeypatch.chdir(tmp_path)
    assert main(["train", *out, "--resume", "--steps", "2"]) == 0
    assert "going on from step 1" in (text := capsys.readouterr().out) and "done after 2 steps" in text


@pytest.mark.parametrize(
    "argv,text",
    [
        (["train", "--out", "OUT"], "data is missing: folder of .flac/.wav clips"),
        (
            ["train", "--out", "OUT", "--data", "none", "--test", "none", "--config", '{"preset": "plain"}'],
            "none does not exist; give a folder with .flac or .wav files",
        ),
        (["train", "--out", "OUT", "--resume"], "holds no run to resume"),
        (["train", "--out", "OUT", "--resume", "--pitch", "a"], "leave them out with --resume"),
        (["pitch", "--out", "OUT"], "data is missing: folder of .flac/.wav clips"),
        (["pitch", "--out", "OUT", "--data", "none", "--test", "none"], "none does not exist"),
        (
            ["train", "--out", "OUT", "--data", "a", "--test", "b", "--config", '{"layer": 3}'],
            "voice geometry: unknown setting layer; did you mean layers?",
        ),
        (["card", "none.safetensors"], "checkpoint none.safetensors does not exist"),
        (["render", "none.wav", "out.wav"], "none.wav: no such file"),
        (["render", "none.npy", "out.wav"], "none.npy is not a readable .npy file"),
        (["import", "none.pt", "out.safetensors"], "none.pt"),
    ],
)
def test_wrong_argument_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, argv, text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["causal", "blind"])
def test_render_writes_the_voices_samples(room: Path, tmp_path: Path, name: str) -> None:
    wave = voice_like(0.6, 3)
    soundfile.write(tmp_path / "in.wav", wave, 22050)
    voice = room / f"{name}.safetensors"
    argv = ["--checkpoint", str(voice), "--seed", "5", "--sigma", "0.3", "--device", "cpu"]
    assert main(["render", str(tmp_path / "in.wav"), str(tmp_path / "a.wav"), *argv]) == 0
    source = soundfile.read(tmp_path / "in.wav", dtype="float32")[0]
    mel = log_mel(source)[: len(source) // 256]
    np.save(tmp_path / "mel.npy", mel)
    assert main(["render", str(tmp_path / "mel.npy"), str(tmp_path / "b.wav"), *argv]) == 0
    a, b = (soundfile.read(tmp_path / f"{x}.wav", dtype="float32") for x in "ab")
    assert a[1] == 22050 and len(a[0]) == len(mel) * 256 and np.array_equal(a[0], b[0])
    expected = whole(checkpoint.load(voice), mel, 5, 0.3).clip(-1, 1)
    assert np.abs(a[0] - expected).max() < 1e-4


@pytest.mark.parametrize(
    "mel,text",
    [
        (np.zeros((80, 30), np.float32), "shape [80, 30]; expected frames [L, 80]"),
        (np.full((30, 80), np.nan, np.float32), "not finite floats"),
        (np.zeros((30, 80), np.int32), "not finite floats (dtype int32)"),
    ],
)
def test_wrong_mel_is_refused(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mel: Any, text: str
) -> None:
    np.save(tmp_path / "mel.npy", mel)
    argv = [
        "render",
        str(tmp_path / "mel.npy"),
        str(tmp_path / "o.wav"),
        "--checkpoint",
        str(room / "causal.safetensors"),
    ]
    assert_refused(capsys, argv, text)


def test_unwritable_output_is_refused(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "mel.npy", np.full((4, 80), -5, np.float32))
    argv = ["render", str(tmp_path / "mel.npy"), "--checkpoint", str(room / "causal.safetensors")]
    assert_refused(capsys, [*argv, str(tmp_path / "o.mp3")], "allowed: .flac, .wav")
    assert_refused(capsys, [*argv, str(tmp_path / "none" / "o.wav")], "cannot write")


def test_card_shows_geometry_and_card(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(room / "causal.safetensors")
    assert main(["card", path]) == 0
    text = capsys.readouterr().out
    assert "flows                5" in text and "rate_hz" in text and "1 points" in text
    assert main(["card", path, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["config"] == tiny().to_dict() and table["card"]["curve"] == [[1, 2]]


def test_context_prints_the_curve(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [str(room / "data" / "clip0.flac"), "--seconds", "0.3"]
    assert main(["context", str(room / "blind.safetensors"), *argv]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3 and "look-ahead" in lines[0] and all(" dB " in line for line in lines[1:])


def test_import_converts_a_published_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    geometry = Geometry()
    torch.save({"model": random_weights(geometry), "iteration": 7}, tmp_path / "file.pt")
    assert main(["import", str(tmp_path / "file.pt"), str(tmp_path / "o.safetensors"), "--half"]) == 0
    said = capsys.readouterr().out
    assert "5 flows of 3 layers, 16 channels, G = 8" in said
    assert "mel: 22050 Hz (assumed), 256 samples a frame (assumed), 8000 Hz at most (assumed)" in said
    assert "import it with --rate, --hop, --fmax" in said
    assert checkpoint.load(tmp_path / "o.safetensors").config.mel.n_mels == geometry.n_mel_channels
    options = ["--rate", "16000", "--hop", "256", "--fmax", "7600"]
    refused = ["import", str(tmp_path / "file.pt"), str(tmp_path / "file.pt")]
    assert_refused(capsys, refused, "file.pt exists already, and is a PyTorch checkpoint; choose another name")
    assert main(["import", str(tmp_path / "file.pt"), str(tmp_path / "o.safetensors"), *options]) == 0
    assert "16000 Hz (given)" in (said := capsys.readouterr().out) and "assumed" not in said
    assert checkpoint.load(tmp_path / "o.safetensors").config.mel.rate_hz == 16_000


def test_import_of_no_voice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {}}, tmp_path / "empty.pt")
    assert_refused(capsys, ["import", str(tmp_path / "empty.pt"), str(tmp_path / "o.safetensors")], "holds no WaveGlow")


TRAIN_FLAGS = """
    --out --data --test --minutes --steps --batch --segment --max-silence --colour --pace --favour
    --lr --warm-up --decay --clip-norm --skip-norm --average
    --nll-weight --spectral-weight --spectral-samples --phase-weight --mel-weight --comb-weight --spectral-sigma --every
    --samples-every
    --validation-segments --seed --device --precision --compile --threads --name --licence --config --init --pitch --resume
"""


def test_train_help_has_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert re.findall(r"^  (--[a-z-]+)", text, re.M) == TRAIN_FLAGS.split()
    words = " ".join(text.split())
    assert "--segment SEGMENT_SAMPLES samples per segment, a multiple of the hop; 0: about 0.74 s (at least 0;" in words
    assert "--seed SEED seed of weights and batches (default 0)" in words


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from glowd.flow.cli import parser; parser().format_help(); print({'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout == "set()\n"


def test_missing_package_is_named_in_one_line() -> None:
    code = "import sys; sys.modules['torch'] = None; from glowd.flow.cli import main; sys.exit(main(['card']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "glowlab: this command needs the package torch, which is not installed; install it with"
    )


def test_closed_pipe_is_no_error() -> None:
    command = [sys.executable, "-c", "import sys; from glowd.flow.cli import main; sys.exit(main(['card']))"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 0)
