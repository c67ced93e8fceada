"""`glowlab evaluate` as a user runs it, and the tables of its measurements."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from glowd.flow import checkpoint
from glowd.flow.cli import main
from glowd.flow.evaluation import metrics, readme_tables, scores
from glowd.flow.evaluation.evaluate import (
    EvaluateError,
    Job,
    Measured,
    Problem,
    figures_of,
    measure,
    plan_jobs,
    read_clip,
    run_jobs,
)  # fmt: skip
from glowd.flow.evaluation.likelihood import nll
from glowd.flow.evaluation.scores import Row
from glowd.flow.evaluation.systems import (
    GRIFFIN_LIM,
    REAL,
    RTISI_LA,
    STREAMED,
    WAVEGLOW,
    WAVENET,
    System,
    build,
    format_of,
    group_of,
    of_checkpoint,
    systems_of,
)  # fmt: skip
from glowd.flow.mel import MelFormat
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.network.wavenet_sampling import sample
from glowd.flow.training.data import Batch, load_clips
from glowd.flow.training.geometry import geometry
from glowd.flow.training.locked_phase import lock
from glowd.flow.training.objective import likelihood
from tests.harness.recordings import voice_like, write_recordings
from tests.harness.voices import SMALL_SOURCE, random_voice, tiny
from tests.harness.wavenets import small

FORMAT = MelFormat()


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a causal voice, one that is not, recordings, and two files that cannot be judged."""
    root = tmp_path_factory.mktemp("evaluate")
    for name, causal in (("causal", True), ("blind", False)):
        voice = random_voice(tiny(causal=causal))
        checkpoint.save(root / f"{name}.safetensors", voice.config, voice.state_dict(), {"name": name})
    write_recordings(root / "talk", 2, seconds=1.2)
    soundfile.write(root / "talk" / "silent.flac", np.zeros(22050, np.float32), 22050)
    soundfile.write(root / "talk" / "tiny.flac", voice_like(0.2, 0), 22050)
    for name in ("ann", "ben"):
        write_recordings(root / "crowd" / name, 2, seconds=1.2)  # DNSMOS listens twice to one of 0.8 s
    (root / "plain.md").write_text("a document without marks")
    return root


def test_evaluate_end_to_end_writes_table_json_and_csv(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = tmp_path / "out.json", tmp_path / "out.csv"
    argv = [
        "evaluate",
        str(room / "causal.safetensors"),
        "--data",
        str(room / "talk"),
        "--seeds",
        "2",
        "--sigma",
        "0.5",
    ]
    assert main([*argv, "--jobs", "2", "--json", str(out), "--csv", str(sheet)]) == 0
    text = capsys.readouterr().out
    assert "talk: 2 clips" in text and "+/- of 2 seeds" in text
    assert text.count("silent.flac is silent") == text.count("tiny.flac is too short: 0.20 s") == 1
    document = json.loads(out.read_text())
    rows = {row.system: row for row in scores.read_rows(document)}
    assert list(rows) == [REAL, GRIFFIN_LIM, RTISI_LA, f"{WAVEGLOW} sigma 0.5", f"{STREAMED} sigma 0.8"]
    assert rows[REAL].mean["stoi"] == pytest.approx(1) and rows[REAL].spread == {}
    assert all(1 <= row.mean["dnsmos"] <= 5 and row.mean["peak"] > 0 for row in rows.values())
    assert ["nll" in row.mean for row in rows.values()] == [False, False, False, True, True]
    assert rows[GRIFFIN_LIM].mean["mel_mae"] < rows[f"{WAVEGLOW} sigma 0.5"].mean["mel_mae"]
    assert rows[f"{STREAMED} sigma 0.8"].mean["streamed_difference"] <= 1e-5
    assert all(row.clips == 2 and row.mean["rtf"] > 0 for name, row in rows.items() if name != REAL)
    assert f"goal, {GRIFFIN_LIM}: PESQ >= 3.2 " in text and document["made"]["command"]
    with sheet.open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(document["measurements"]) == 2 * (1 + 4 * 2)
    own = [line for line in lines if line["system"] == GRIFFIN_LIM]
    assert np.mean([float(line["stoi"]) for line in own]) == pytest.approx(rows[GRIFFIN_LIM].mean["stoi"])


@pytest.mark.usefixtures("in_this_process")
def test_strangers_have_a_row_each_speaker_a_line_the_readme_all(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document, out = tmp_path / "README.md", tmp_path / "out.json"
    document.write_text(f"one\n{readme_tables.BEGIN}\n{readme_tables.END}\ntwo\n")
    monkeypatch.chdir(room)
    argv = ["evaluate", "causal.safetensors", "--data", "talk", "--strangers", str(room / "crowd")]
    argv += ["--clips", "2", "--seeds", "1", "--jobs", "1", "--readme", str(document), "--json", str(out)]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "strangers: 2 clips" in said and f"{STREAMED} sigma 0.8, each speaker" in said and "PESQ >= 2.8" in said
    written = json.loads(out.read_text())
    assert [(row["set"], row["clips"], row["stranger"]) for row in written["rows"][::4]] == [
        ("talk", 2, False), ("crowd", 2, True), ("strangers", 2, True),
    ]  # fmt: skip
    assert {row["set"] for row in written["speakers"]} == {"crowd/ann", "crowd/ben"}
    lines = readme_tables.between(document)
    command = (
        "    glowlab evaluate causal.safetensors --data talk --strangers crowd --clips 2 --seeds 1 --readme README.md"
    )
    assert lines[0] == command
    read = list(readme_tables.read(lines))
    assert [row.set for row in read] == ["talk"] * 4 + ["crowd"] * 4 + ["strangers"] * 4 + ["crowd/ann", "crowd/ben"]
    rows, speakers = scores.read_rows(written), [Row(**row) for row in written["speakers"]]
    assert lines == readme_tables.tables(rows, speakers, lines[0].split())


def test_clips_come_from_speakers_in_turn(room: Path) -> None:
    jobs = plan_jobs([], [System(REAL)], 1, 3, [room / "crowd"])
    assert [(job.speaker, job.path.name, job.stranger) for job in jobs] == [
        ("ann", "clip0.flac", True), ("ben", "clip0.flac", True), ("ann", "clip1.flac", True),
    ]  # fmt: skip


def test_nll_of_whole_clip_is_that_of_validation(room: Path) -> None:
    clips = load_clips(room / "talk", FORMAT, 4096)
    voice = checkpoint.load("embedded")
    lock(clips, voice)
    audio, mel = clips.whole(0)
    assert clips.phase is not None
    batch = Batch(audio[None], mel[None], clips.phase[None, : len(audio)].float())
    with torch.no_grad():
        expected = likelihood(voice.nll, voice, batch, False).item()
    found = nll(voice, audio.numpy(), FORMAT)
    assert found == pytest.approx(expected, abs=2e-3)  # clips keep their phase in float16
    free = batch._replace(phase=batch.phase + 0.4) if batch.phase is not None else batch
    with torch.no_grad():
        assert abs(likelihood(voice.nll, voice, free, False).item() - expected) > 2e-3  # the phase counts


def test_checkpoint_may_be_given_a_title(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room)
    systems = systems_of(["now=causal.safetensors", "before=blind.safetensors"], [], 4)
    assert [(s.name, s.checkpoint) for s in systems if s.kind == WAVEGLOW] == [
        ("WaveGlow (now) sigma 0.8", "causal.safetensors"), ("WaveGlow (before) sigma 0.8", "blind.safetensors"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "talk", "--seeds", "0"], "--seeds is 0; allowed: at least 1"),
        (["--data", "talk", "--sigma", "3"], "--sigma is 3; allowed: 0 to 2"),
        (["--data", "none"], "none does not exist"),
        ([], "give folders of recordings with --data or --strangers"),
        (["--data", "talk", "--strangers", "talk"], "the same name"),
        (["--data", "talk", "--readme", "plain.md"], "plain.md cannot take tables; it needs the lines <!-- glowlab"),
        (["--data", "talk", "--json", "none/out.json"], "none/out.json cannot be written: there is no folder none"),
        (["--data", "talk", "talk"], "the same name"),
        (["causal.safetensors", "./causal.safetensors", "--data", "talk"], "two checkpoints have the same name"),
    ],
)
def test_wrong_argument_ends_in_one_line(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    monkeypatch.chdir(room)
    assert main(["evaluate", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("glowlab: ") and error.count("\n") == 1 and said in error, error


@pytest.mark.parametrize("mel", ["cosyvoice2", "pwg-24k", "bigvgan-44k"])
def test_voice_of_another_format_is_measured(room: Path, tmp_path: Path, mel: str) -> None:
    config = geometry({"mel": mel} | SMALL_SOURCE)
    assert isinstance(config, WaveGlowConfig)
    path = tmp_path / "voice.safetensors"
    checkpoint.save(path, config, random_voice(config).state_dict())
    found = [measure(job) for job in plan_jobs([room / "talk"], systems_of([str(path)], [], 4), 1, 1)]
    rows = {each.job.system.name: each for each in found if isinstance(each, Measured)}
    assert len(rows) == len(found) == 5, found
    assert rows[REAL].values["stoi"] == pytest.approx(1) and rows[REAL].values["mel_mae"] == 0
    for name in (GRIFFIN_LIM, RTISI_LA):
        values = rows[name].values
        print(name, mel, values)
        assert values["mel_mae"] < 0.5 and values["stoi"] > 0.8 and values["mrstft"] > 0
    streamed = rows[f"{STREAMED} sigma 0.3"]
    assert streamed.values["streamed_difference"] <= 1e-5 and len(streamed.comb_db) == config.group // 2 - 1


@pytest.mark.usefixtures("in_this_process")
def test_nothing_to_measure_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "silent.flac", np.zeros(22050, np.float32), 22050)
    assert main(["evaluate", "--data", str(tmp_path), "--jobs", "1", "--seeds", "1", "--sigma", "1"]) == 2
    assert "nothing could be measured" in capsys.readouterr().err


def test_missing_library_is_named_before_rendering(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics, "LIBRARIES", ("pystoi", "no_such_library"))
    assert main(["evaluate", "--data", str(room / "talk")]) == 2
    assert "needs no_such_library, which is missing; install it" in capsys.readouterr().err


def test_non_causal_voice_streams_within_its_plan(room: Path) -> None:
    systems = of_checkpoint(str(room / "blind.safetensors"), [], 4)
    assert [system.kind for system in systems] == [WAVEGLOW, STREAMED]
    mel = read_clip(room / "talk" / "clip0.flac", FORMAT).mel[:40]
    whole, streamed = (build(system, format_of(systems))(mel, 1) for system in systems)
    assert whole.shape == streamed.shape == (40 * 256,)
    assert 0 < metrics.difference_max(whole, streamed) < 1


def test_wavenet_checkpoint_renders_as_sampled(room: Path, tmp_path: Path) -> None:
    network = small()
    checkpoint.save(tmp_path / "net.safetensors", network.config, network.state_dict())
    systems = of_checkpoint(str(tmp_path / "net.safetensors"), [0.5, 0.8], 4)
    assert [(system.kind, system.name) for system in systems] == [(WAVENET, WAVENET)]
    mel = read_clip(room / "talk" / "clip0.flac", FORMAT).mel[:12]
    assert np.array_equal(build(systems[0], format_of(systems))(mel, 2), sample(network, [mel], 2)[0])


def test_two_checkpoints_of_a_kind_get_titles(room: Path, tmp_path: Path) -> None:
    network = small()
    checkpoint.save(tmp_path / "net.safetensors", network.config, network.state_dict())
    paths = [str(room / "causal.safetensors"), str(tmp_path / "net.safetensors"), str(room / "blind.safetensors")]

    def names(checkpoints: list[str]) -> list[str]:
        return [s.name for s in systems_of(checkpoints, [], 4) if s.checkpoint]

    assert names(paths[:2]) == ["WaveGlow sigma 0.8", "WaveGlow streamed sigma 0.8", "WaveNet"]
    assert names(paths[::2])[::2] == ["WaveGlow (causal) sigma 0.8", "WaveGlow (blind) sigma 0.8"]


def test_comb_group_is_the_voices(room: Path) -> None:
    assert group_of(of_checkpoint(str(room / "causal.safetensors"), [], 4)) == 64
    assert group_of([System(REAL)]) == 64


def test_voices_with_different_mels_are_refused(room: Path, tmp_path: Path) -> None:
    voice = random_voice(tiny(mel=MelFormat(fmax_hz=7600.0)))
    checkpoint.save(tmp_path / "other.safetensors", voice.config, voice.state_dict())
    systems = [System(WAVEGLOW, str(path)) for path in (room / "causal.safetensors", tmp_path / "other.safetensors")]
    with pytest.raises(ValueError, match="different mel formats; evaluate them separately"):
        format_of(systems)


def test_silent_render_is_a_problem_not_an_error(room: Path) -> None:
    clip = read_clip(room / "talk" / "clip0.flac", FORMAT)
    values, comb, problems = figures_of(clip, np.zeros_like(clip.audio), FORMAT, 64)
    assert (values, comb) == ({"peak": 0, "overload": 0}, []) and problems == [
        "the render is silent: RMS 0; needed: at least 0.0001"
    ]


def test_diverged_render_is_measured_clipped(room: Path) -> None:
    clip = read_clip(room / "talk" / "clip0.flac", FORMAT)
    wild = clip.audio.copy()
    wild[4000:] *= np.float32(1e30) * np.sign(np.sin(np.arange(len(wild) - 4000))).astype(np.float32)
    values, _, problems = figures_of(clip, wild, FORMAT, 64)
    assert values["overload"] == 1 and problems[0].startswith("diverged: peak ") and values["mel_mae"] > 1
    assert all(np.isfinite(value) for value in values.values())


def test_render_without_pitch_lacks_only_pitch_figures(room: Path) -> None:
    clip = read_clip(room / "talk" / "clip0.flac", FORMAT)
    noise = (0.1 * np.random.default_rng(0).standard_normal(len(clip.audio))).astype(np.float32)
    values, comb, problems = figures_of(clip, noise, FORMAT, 64)
    assert "stoi" in values and len(comb) == 31
    assert ("f0_cents" in values) != any(problem.startswith("f0_cents: no frame is voiced") for problem in problems)


def test_unreadable_clip_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "bad.flac").write_text("no sound")
    found = measure(Job("set", tmp_path / "bad.flac", System(REAL), 0, FORMAT, 64))
    assert isinstance(found, Problem) and "bad.flac is not a readable recording" in found.text


def test_plan_gives_real_audio_one_seed_and_limits_clips(room: Path) -> None:
    jobs = plan_jobs([room / "talk"], [System(REAL), System(GRIFFIN_LIM)], 3, 2)
    assert len(jobs) == 2 * (1 + 3)
    assert [job.seed for job in jobs[:4]] == [0, 0, 1, 2]


def die(job: Job) -> None:
    os._exit(1)


def test_worker_death_is_an_error_with_a_remedy() -> None:
    with pytest.raises(EvaluateError, match=r"a worker process died .* try fewer with --jobs"):
        list(run_jobs(die, [Job("set", Path("x"), System(REAL), 0, FORMAT, 64)], 1))


# ---- rows


def measured(seed: int, clip: str, system: System = System(WAVEGLOW, "x"), **values: float) -> Measured:
    return Measured(Job("lj", Path(clip), system, seed, FORMAT, 64), values, [0.0, 2.0 * seed])


def test_row_has_mean_and_spread_over_seeds() -> None:
    (row,) = scores.rows(
        [
            measured(0, "a", stoi=0.8, streamed_difference=1e-7),
            measured(0, "b", stoi=0.6, streamed_difference=3e-7),
            measured(1, "a", stoi=0.9),
            measured(1, "b"),
        ]
    )
    assert (row.set, row.system, row.clips, row.seeds) == ("lj", WAVEGLOW, 2, 2)
    assert row.mean["stoi"] == pytest.approx((0.8 + 0.6 + 0.9) / 3)
    assert row.spread["stoi"] == pytest.approx(0.2 / np.sqrt(2))  # of 0.7 and 0.9
    assert row.mean["streamed_difference"] == 3e-7  # the largest, not the mean
    assert (row.mean["comb_db"], row.mean["comb_worst_db"]) == (
        0.5,
        1.0,
    )  # teeth are averaged before the worst is found
    assert "streamed_difference" not in row.spread


def test_goal_lines_give_the_distance_to_each_goal() -> None:
    rows = scores.rows([measured(0, "a", stoi=0.9, pesq=3.3), measured(0, "a", System(REAL), stoi=1.0)])
    assert scores.goal_lines(rows) == [
        "goal, WaveGlow: PESQ >= 3.2 reached; STOI >= 0.965 missed by 0.065; comb dB <= 1 reached"
    ]


def test_unmeasured_figure_is_absent_from_the_table() -> None:
    lines = scores.table(scores.rows([measured(0, "a", stoi=0.9)]))
    row = next(line for line in lines if line.startswith("WaveGlow"))
    assert row.split()[1:4] == ["-", "0.900", "-"]


def test_json_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="not a result of `glowlab evaluate --json`"):
        scores.read_rows({"row": []})
