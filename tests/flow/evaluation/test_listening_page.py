"""The page of `glowlab compare`: complete, self-contained, and with a note for what is missing."""

import io
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from PIL import Image

from glowd.clients.launch import launch
from glowd.flow import checkpoint
from glowd.flow.cli import main
from glowd.flow.evaluation import listening_page, live, plots, renders, scores
from glowd.flow.evaluation.evaluate import Job, Measured
from glowd.flow.evaluation.systems import GRIFFIN_LIM, REAL, RTISI_LA, WAVEGLOW, System
from glowd.flow.mel import Floats, log_mel
from glowd.flow.recordings import RecordingError
from tests.harness.pages import Page, content_of
from tests.harness.recordings import voice_like, write_recordings
from tests.harness.voices import random_voice, tiny

HEAD = "speaker\tlicence\tsource"
CURVE = [[step * 10, step * 36.0, -3 + 1 / (step + 1), -3 + 2 / (step + 1), 0.002] for step in range(30)]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A voice with a curve, and two sets of recordings with one bad file."""
    root = tmp_path_factory.mktemp("compare")
    voice = random_voice(tiny())
    card = {"name": "tiny <b>", "licence": "CC0", "curve": CURVE}
    checkpoint.save(root / "tiny.safetensors", voice.config, voice.state_dict(), card)
    write_recordings(root / "one", 2, seconds=1.2)
    write_recordings(root / "two", 1, seconds=1.3, first_seed=7)
    soundfile.write(root / "two" / "aaa-silent.flac", np.zeros(22050, np.float32), 22050)
    return root


@pytest.fixture(scope="module")
def text(room: Path) -> str:
    """A page with two sentences and a clip that cannot be used, without the daemon."""
    out = room / "page.html"
    data = ["--data", str(room / "one"), str(room / "two"), "--count", "3"]
    argv = ["compare", str(room / "tiny.safetensors"), *data, "--out", str(out), "--no-live", "--jobs", "1"]
    assert main(argv) == 0
    return out.read_text("utf-8")


def test_page_is_well_formed_and_self_contained(text: str) -> None:
    page = Page(text)
    assert page.problems == []
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    assert page.requests() == [] and page.all("script") == [{}]
    assert page.policy().startswith("default-src 'none'")


def test_sentence_has_player_and_picture_of_each_system(text: str) -> None:
    page = Page(text)
    names = [REAL, GRIFFIN_LIM, RTISI_LA, f"{WAVEGLOW} sigma 0.8"]
    players, images = page.all("audio"), page.all("img")
    assert len(players) == len(images) == 2 * len(names)
    assert [p["aria-label"] for p in players] == [f"clip{i}, {name}" for i in (0, 1) for name in names]
    assert all(image["alt"] for image in images)
    for image in images:
        assert Image.open(io.BytesIO(content_of(image["src"]))).size == (104, 160)  # 1.2 s in hops, and bands
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for kind in ("aria-controls", "aria-labelledby"):
        assert {attributes[kind] for _, attributes in page.elements if kind in attributes} <= set(ids)
    assert all(button.get("type") == "button" for button in page.all("button"))


def test_sound_of_real_audio_is_the_recording(text: str, room: Path) -> None:
    real = next(player for player in Page(text).all("audio") if player["aria-label"] == f"clip0, {REAL}")
    heard, rate_hz = soundfile.read(io.BytesIO(content_of(real["src"])), dtype="float32")
    source, _ = soundfile.read(room / "one" / "clip0.flac", dtype="float32")
    wanted = soxr.resample(source[: len(source) // 256 * 256], 22050, rate_hz)
    assert len(heard) == len(wanted) and np.corrcoef(heard, wanted)[0, 1] > 0.99


def test_page_has_figures_curve_and_provenance(text: str, room: Path) -> None:
    page = Page(text)
    said = "".join(page.words)
    headings = [column.heading for column in scores.COLUMNS if column.key != scores.STREAMED]
    for words in [*headings, "goal", "licence", "CC0", "glowlab", "commit", "one, 2 clips", "tiny <b>"]:
        assert words in said, words
    assert "tiny <b>" not in text  # escaped: a card is not trusted with markup
    assert re.search(r"commit</dt><dd>([0-9a-f]{40}|unknown)", text)
    assert checkpoint_digest(room) in text
    assert [line["class"] for line in page.all("polyline")] == ["train", "validation"]
    assert "aaa-silent.flac is silent" in said  # what is missing is said


def checkpoint_digest(room: Path) -> str:
    import hashlib

    return hashlib.sha256((room / "tiny.safetensors").read_bytes()).hexdigest()


def test_blind_test_lists_sentences_and_systems(text: str) -> None:
    found = re.search(r"const CONTENT = (\[.*\]);", text)
    assert found
    names = [REAL, GRIFFIN_LIM, RTISI_LA, f"{WAVEGLOW} sigma 0.8"]
    assert json.loads(found[1]) == [["clip0", names], ["clip1", names]]
    page = Page(text)
    assert [radio["value"] for radio in page.all("input") if radio.get("name") == "mode"] == ["all", "pair", "rate"]
    assert {"toggle", "blind", "hear", "votes", "scores", "copy", "clear"} <= {a.get("id") for _, a in page.elements}
    assert 'const KEY = "glowd-compare-' in text and "localStorage" in text


@pytest.mark.usefixtures("in_this_process")
def test_given_evaluation_is_shown_and_named(room: Path, tmp_path: Path) -> None:
    row = {"set": "far", "system": "X", "clips": 7, "seeds": 3, "mean": {"stoi": 0.97}, "spread": {"stoi": 0.01}}
    result = tmp_path / "result.json"
    result.write_text(json.dumps({"rows": [row], "made": {"command": "glowlab evaluate --data far"}}))
    argv = ["compare", str(room / "tiny.safetensors"), "--data", str(room / "one" / "clip1.flac"), "--no-live"]
    argv += ["--jobs", "1", "--audio", "flac", "--out", str(tmp_path / "new")]
    assert main([*argv, "--evaluation", str(result)]) == 0
    page = (tmp_path / "new" / "compare.html").read_text("utf-8")
    assert "far, 7 clips" in page and "0.970 ✓<small>±0.010" in page and "glowlab evaluate --data far" in page
    assert "data:audio/flac;base64," in page and "audio/ogg" not in page


@pytest.mark.usefixtures("in_this_process")
def test_manifest_names_origin_and_licence_of_each_recording(room: Path, tmp_path: Path) -> None:
    (room / "MANIFEST.tsv").write_text(f"file\tseconds\t{HEAD}\none/clip0.flac\t1.2\tAnn & Co\tCC BY 4.0\tthe corpus\n")
    argv = ["compare", str(room / "tiny.safetensors"), "--data", str(room / "one" / "clip0.flac"), "--no-live"]
    out, picture = tmp_path / "page.html", tmp_path / "picture.png"
    argv += ["--jobs", "1", "--out", str(out), "--picture", str(picture)]
    assert main([*argv, "--manifest", str(room / "MANIFEST.tsv")]) == 0
    text = out.read_text("utf-8")
    page = Page(text)
    assert page.problems == page.requests() == []
    assert "Ann &amp; Co. CC BY 4.0." in text and "the corpus" in text
    width, height = Image.open(picture).size
    assert 700 < width < 1000 and 300 < height < 500  # two rows of two systems


@pytest.mark.usefixtures("in_this_process")
def test_strangers_have_a_table_and_goals_of_their_own(room: Path, tmp_path: Path) -> None:
    argv = ["compare", str(room / "tiny.safetensors"), "--data", str(room / "one" / "clip0.flac"), "--no-live"]
    argv += ["--strangers", str(room / "one" / "clip1.flac"), "--jobs", "1", "--out", str(tmp_path / "page.html")]
    assert main(argv) == 0
    known, strangers = (tmp_path / "page.html").read_text("utf-8").split("<h3>")[1:3]
    assert known.startswith("speakers of the training, 1 clip<") and "≥ 3.2" in known
    assert strangers.startswith("strangers, 1 clip<") and "≥ 2.8" in strangers


def test_diverged_render_is_played_as_soft_as_the_recording(room: Path) -> None:
    wave, noise = voice_like(1.0, 0), np.sign(voice_like(1.0, 1)).astype(np.float32)
    players = [
        render(room, System(REAL), wave, stoi=1.0, overload=0.0),
        render(room, System(GRIFFIN_LIM), noise, stoi=0.1, overload=1.0),
    ]
    (sentence,) = listening_page.sentence_entries(players, "flac")
    heard = [soundfile.read(io.BytesIO(content_of(player["audio"])))[0] for player in sentence["players"]]
    assert np.std(heard[1]) == pytest.approx(np.std(heard[0]), rel=0.01)
    figures = [player["figures"] for player in sentence["players"]]
    assert figures == [["STOI 1.000"], ["STOI 0.100", "diverged: played more softly here"]]


def render(room: Path, system: System, samples: Floats, **values: float) -> renders.Render:
    job = Job("one", room / "one" / "clip0.flac", system, 0, plots.MelFormat(), 64)
    return renders.Render(Measured(job, values, []), samples)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--manifest", "two/none.tsv"], "none.tsv"),
        (["--manifest", "bad.tsv"], "bad.tsv has no column licence; needed: a first line with file, speaker, licence"),
        (["--manifest", "few.tsv"], "few.tsv has no line for one/clip0.flac; add one, or leave the recording out"),
        (["--count", "0"], "--count is 0; allowed: at least 1"),
        (["--longest", "0.5"], "no recording is at most 0.5 s long; raise --longest"),
        (["--evaluation", "none.json"], "none.json"),
        (["--evaluation", "page.json"], "--evaluation page.json: not a result of `glowlab evaluate --json`"),
    ],
)
def test_wrong_argument_ends_in_one_line(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    monkeypatch.chdir(room)
    (room / "page.json").write_text("{}")
    (room / "bad.tsv").write_text("file\tspeaker\tsource\n")
    (room / "few.tsv").write_text(f"file\t{HEAD}\n")
    assert main(["compare", "tiny.safetensors", "--data", "one", "--out", "no.html", "--no-live", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("glowlab: ") and error.count("\n") == 1 and said in error, error
    assert not (room / "no.html").exists()


def test_sentences_come_from_folders_in_turn(room: Path) -> None:
    assert [path.name for _, path in renders.sentences([room / "one", room / "two"], 3, 8)] == [
        "clip0.flac", "clip1.flac", "aaa-silent.flac",
    ]  # fmt: skip
    assert [name for name, _ in renders.sentences([room / "two", room / "one" / "clip1.flac"], 3, 8)] == [
        "two",
        "two",
        "one",
    ]
    with pytest.raises(RecordingError, match="does not exist"):
        renders.sentences([room / "none"], 3, 8)


@pytest.mark.usefixtures("in_this_process")
def test_daemon_that_cannot_start_is_a_note(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "launch", partial(launch, command=("sh", "-c", "echo no glowd here >&2; exit 1")))
    out = tmp_path / "page.html"
    argv = ["compare", str(room / "tiny.safetensors"), "--data", str(room / "one" / "clip0.flac"), "--jobs", "1"]
    assert main([*argv, "--out", str(out)]) == 0
    told = "WaveGlow live: glowd did not become ready; its log ends with:\nno glowd here"
    assert told in capsys.readouterr().out and told in out.read_text("utf-8")


# ---- pictures


def test_spectrogram_is_bright_at_the_tone() -> None:
    t = np.arange(22050) / 22050
    tone: Floats = (0.5 * np.sin(2 * np.pi * 2000 * t)).astype(np.float32)
    picture = np.asarray(Image.open(io.BytesIO(plots.spectrogram(tone, 22050))).convert("L"), np.float32)
    assert picture.shape == (160, 22050 // 256 + 1)
    row = picture[:, 20:60].mean(1).argmax()
    level = log_mel(tone, pictures_format())[30].argmax()
    assert abs((159 - row) - level) <= 1 and picture.max() > 200 and np.median(picture) < 40


def pictures_format() -> "plots.MelFormat":
    return plots.MelFormat(22050, n_fft=2048, win=1024, n_mels=160, fmax_hz=11025.0, log_floor=1e-7)


def test_quieter_signal_is_darker_on_the_same_scale() -> None:
    wave = voice_like(1, 0)
    top = float(plots.spectrum(wave, 22050).max())
    loud, quiet = (
        np.asarray(Image.open(io.BytesIO(plots.spectrogram(x, 22050, top))).convert("L"), np.float32)
        for x in (wave, wave / np.float32(10))
    )
    assert quiet.mean() < loud.mean() - 10


def test_curve_falls_from_left_to_right() -> None:
    svg = plots.curve(CURVE)
    lines = re.findall(r'class="(\w+)" points="([^"]+)"', svg)
    assert [name for name, _ in lines] == ["train", "validation"]
    points = np.array([[float(v) for v in pair.split(",")] for pair in lines[1][1].split()])
    assert len(points) == len(CURVE) - 3 and points[0, 1] == plots.TOP  # the steep beginning is left out
    assert (np.diff(points[:, 0]) > 0).all() and (np.diff(points[:, 1]) >= 0).all()
    assert "0.3 hours" in svg and plots.curve(CURVE[:1]) == ""
