"""A checkpoint of another network is told what it is, and what to do."""

from pathlib import Path

import pytest
import torch

from glowd.flow.checkpoint import CheckpointError
from glowd.flow.importing.nvidia import import_checkpoint
from tests.harness.publishing import Geometry, random_weights

ONE = torch.ones(1)
HIFI_GAN = ["conv_pre.weight_g", "ups.0.weight_v", "resblocks.0.convs1.0.bias"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (HIFI_GAN, "it holds a HiFi-GAN; glowd inverts WaveGlow; .*glowlab train.* rtisi"),
        ([*HIFI_GAN, "resblocks.0.activations.0.act.alpha"], "it holds a BigVGAN"),
        (["discriminators.0.convs.0.weight_g"], "it holds the discriminators of a HiFi-GAN"),
        (["enc_p.emb.weight", "dec.conv_pre.weight"], "it holds a VITS; it speaks text by itself"),
        (["decoder.attention_rnn.weight_ih"], "it holds a Tacotron 2; it makes mels: .*glowctl send"),
        (
            ["flows.0.coupling.wn.start.weight"],
            "it holds a voice of glowd in training; its voice is the .safetensors file beside it",
        ),
        (["encoder.weight"], "it holds no WaveGlow; .*found a dict of 1 with the keys"),
    ],
)
@pytest.mark.parametrize("inside", ["", "generator"])
def test_other_network_is_named(tmp_path: Path, names: list[str], said: str, inside: str) -> None:
    content = dict.fromkeys(names, ONE)
    torch.save({inside: content} if inside else content, tmp_path / "g.pth")
    with pytest.raises(CheckpointError, match=rf"g\.pth cannot be imported: {said}"):
        import_checkpoint(tmp_path / "g.pth")


def test_squeezewave_is_told_apart_from_waveglow(tmp_path: Path) -> None:
    raw = random_weights(Geometry())
    squeezed = {
        name.replace("in_layers.0.", "in_layers.0.1."): value for name, value in raw.items() if "upsample" not in name
    }
    torch.save({"model": squeezed}, tmp_path / "s.pt")
    with pytest.raises(CheckpointError, match=r"it holds a SqueezeWave; its layers are not dilated.*glowlab train"):
        import_checkpoint(tmp_path / "s.pt")


def test_waveglow_beside_another_network_is_imported(tmp_path: Path) -> None:
    raw = random_weights(Geometry())
    content = {f"waveglow.{name}": value for name, value in raw.items()} | {"decoder.attention_rnn.weight_ih": ONE}
    torch.save(content, tmp_path / "both.pt")
    assert import_checkpoint(tmp_path / "both.pt").config.flows == 5
