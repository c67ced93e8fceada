"""Networks that people bring in place of a WaveGlow, told by the names of their weights.

Rules: names only. The first row whose patterns all occur is the answer; its text completes "it holds ...".
"""

import re
from collections.abc import Iterable

OTHER_VOCODER = "glowd inverts WaveGlow; import a WaveGlow, train a voice (glowlab train), or use the voice rtisi"
ACOUSTIC_MODEL = "it makes mels: run it, and send its mels (glowctl send, glowctl formats)"

IN_TRAINING = "its voice is the .safetensors file beside it, which needs no import"
SQUEEZED = (
    "its layers are not dilated, and its last layer reads the sum that they add to, which no geometry of glowd's WaveGlow does; "
    "import a WaveGlow, or train a voice (glowlab train)"
)

NETWORKS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("a SqueezeWave", (r"WN\.0\.in_layers\.0\.\d+\.",),
     SQUEEZED),
    ("a BigVGAN", (r"conv_pre\.", r"resblocks\.0\.activations\."), OTHER_VOCODER),
    ("a VITS", (r"enc_p\.", r"dec\.conv_pre\."), "it speaks text by itself and makes no mels; give a WaveGlow"),
    ("a HiFi-GAN", (r"conv_pre\.", r"ups\.0\.", r"resblocks\.0\."), OTHER_VOCODER),
    ("the discriminators of a HiFi-GAN", (r"discriminators\.0\.convs\.0\.",), f"its generator is another file; {OTHER_VOCODER}"),
    ("a UnivNet", (r"res_stack\.0\.",), OTHER_VOCODER),
    ("a Vocos", (r"backbone\.convnext\.",), OTHER_VOCODER),
    ("a DiffWave", (r"residual_layers\.0\.dilated_conv\.",), OTHER_VOCODER),
    ("a WaveRNN", (r"rnn1\.weight_ih_l0", r"fc3\."), OTHER_VOCODER),
    ("a Parallel WaveGAN", (r"conv_layers\.0\.conv\.", r"last_conv_layers\."), OTHER_VOCODER),
    ("a MelGAN", (r"melgan\.\d+\.",), OTHER_VOCODER),
    ("a Tacotron 2", (r"decoder\.attention_rnn\.",), ACOUSTIC_MODEL),
    ("a Glow-TTS", (r"encoder\.emb\.", r"decoder\.flows\.0\."), ACOUSTIC_MODEL),
    ("a FastPitch or FastSpeech 2", (r"pitch_predictor\.",), ACOUSTIC_MODEL),
    ("a Matcha-TTS", (r"decoder\.estimator\.",), ACOUSTIC_MODEL),
    ("a voice of glowd in training", (r"flows\.0\.coupling\.",), IN_TRAINING),
)  # fmt: skip
"""What it is, patterns that occur in its names, what to do."""


def is_squeezed(names: Iterable[str]) -> bool:
    """Whether the weights, which have WaveGlow's other names, are those of a SqueezeWave."""
    return any(re.search(NETWORKS[0][1][0], name) for name in names)


def known_network(names: Iterable[str]) -> str:
    """What the weights of these names are, and what to do; "" for a network that is not known."""
    every = list(names)
    for what, patterns, advice in NETWORKS:
        if all(any(re.search(rf"(?:^|\.){pattern}", name) for name in every) for pattern in patterns):
            return f"it holds {what}; {advice}"
    return ""
