"""NeMo's archives become voices with the samples of the published network; what a hostile one claims is bounded."""

import gzip
import io
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from glowd.flow.importing.nvidia import Imported, import_checkpoint
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.torchfile.reader import CheckpointFileError
from tests.harness.publishing import Geometry, infer, random_weights

GEOMETRY = Geometry(n_mel_channels=80)
CONFIG = """
sample_rate: &rate 22050
preprocessor:
  cls: nemo.collections.asr.parts.features.FilterbankFeatures
  params: {sample_rate: *rate, n_fft: 1024, n_window_size: 1024, n_window_stride: 256, lowfreq: 0, highfreq: null,
           log_zero_guard_value: 1.0e-05, mag_power: 1.0}
waveglow:
  params: {n_flows: 5, n_group: 8, n_mel_channels: 80, n_wn_channels: 16, n_wn_layers: 3, wn_kernel_size: 3}
sigma: 1.0
"""
NEWER = """
rates: {audio: 16000}
preprocessor:
  _target_: nemo.collections.asr.parts.preprocessing.features.FilterbankFeatures
  sample_rate: ${rates.audio}
  highfreq: 7600
"""


def nemo_weights(raw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As NeMo names them, beside buffers that are no weights of the network."""
    named = {f"waveglow.{name.replace('WN.', 'wavenet.')}": value for name, value in raw.items()}
    return named | {
        "audio_to_melspec_precessor.fb": torch.ones(1, 80, 513),
        "waveglow.convinv.0.inv_conv.weight": torch.ones(8),
    }


def archive(path: Path, weights: Any, config: str | None = CONFIG, mode: str = "w", prefix: str = "./") -> Path:
    stored = io.BytesIO()
    torch.save(weights, stored)
    members = {
        "model_config.yaml": None if config is None else config.encode(),
        "model_weights.ckpt": stored.getvalue(),
    }
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for name, content in members.items():
            if content is not None:
                info = tarfile.TarInfo(prefix + name)
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return path


def network(made: Imported) -> WaveGlow:
    voice = WaveGlow(made.config)
    voice.load_state_dict(made.state)
    return voice.eval()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_archive_inverts_as_the_published_network(tmp_path: Path, mode: str) -> None:
    raw = random_weights(GEOMETRY)
    made = import_checkpoint(archive(tmp_path / "v.nemo", nemo_weights(raw), mode=mode))
    torch.manual_seed(1)
    mel, z = torch.randn(1, 80, 3) * 2 - 5, torch.randn(1, 8, 96) * 0.6
    with torch.no_grad():
        assert (network(made).inverse(z, mel) - infer(raw, GEOMETRY, mel, z)).abs().max() < 1e-4
    mel_format = made.config.mel
    assert (mel_format.rate_hz, mel_format.hop, mel_format.fmax_hz) == (22050, 256, 11025), "null is all there is"
    assert made.mel_source.lines() == [
        "mel: 22050 Hz (the file), 256 samples a frame (the file), 11025 Hz at most (the file)"
    ]


def test_newer_configuration_with_references_is_read(tmp_path: Path) -> None:
    made = import_checkpoint(archive(tmp_path / "v.nemo", nemo_weights(random_weights(GEOMETRY)), NEWER, prefix=""))
    assert (made.config.mel.rate_hz, made.config.mel.fmax_hz) == (16000, 7600)
    assert made.mel_source.origins["hop"] == "assumed" and made.mel_source.origins["rate_hz"] == "the file"


def test_archive_without_configuration_says_what_is_assumed(tmp_path: Path) -> None:
    made = import_checkpoint(archive(tmp_path / "v.nemo", nemo_weights(random_weights(GEOMETRY)), None))
    assert set(made.mel_source.origins.values()) == {"assumed"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("preprocessor: {mag_power: 2.0}", "magnitudes to the power of 2"),
        ("waveglow: {n_flows: 12}", "the file claims n_flows = 12, its weights have 5"),
        ("preprocessor: {sample_rate: -3}", "rate_hz must be a whole number"),
        ("a: [b", "model_config.yaml cannot be read"),
        ("[" * 30_000, "model_config.yaml cannot be read"),
        ("!!python/object/apply:os.system [true]", "model_config.yaml cannot be read"),
        ("preprocessor: {sample_rate: '${a}'}\na: '${a}'", None),
    ],
)
def test_configuration_that_cannot_be_is_refused(tmp_path: Path, config: str, said: str | None) -> None:
    path, began_s = archive(tmp_path / "v.nemo", nemo_weights(random_weights(GEOMETRY)), config), time.monotonic()
    if said is None:
        assert import_checkpoint(path).mel_source.origins["rate_hz"] == "assumed"
    else:
        with pytest.raises(ValueError, match=rf"v\.nemo.*{said}"):
            import_checkpoint(path)
    assert time.monotonic() - began_s < 20


def test_damaged_archive_is_refused_in_words(tmp_path: Path) -> None:
    whole = archive(tmp_path / "v.nemo", nemo_weights(random_weights(GEOMETRY))).read_bytes()
    for path, content, said in (
        ("a.nemo", whole[: len(whole) // 2], "a tar that is cut off or damaged"),
        ("b.nemo", gzip.compress(whole)[:-99], "a gzip file that is cut off"),
        ("c.nemo", gzip.compress(whole[:2048] + bytes(50_000_000)), "unpacks to more than"),
    ):
        (tmp_path / path).write_bytes(content)
        with pytest.raises(CheckpointFileError, match=rf"{path}: .*{said}"):
            import_checkpoint(tmp_path / path)


def test_no_name_of_an_archive_is_a_path(tmp_path: Path) -> None:
    path = archive(tmp_path / "v.nemo", nemo_weights(random_weights(GEOMETRY)), prefix="../../")
    assert import_checkpoint(path).config.flows == 5
    assert [each.name for each in tmp_path.iterdir()] == ["v.nemo"]
