"""The mels of other toolkits, by name.

Rules: a table, with no code but its lookup. The numbers are those of the toolkits' own sources, named beside them. A
preset says what *leaves* the model, before its vocoder.
"""

import difflib
from dataclasses import dataclass, replace

from glowd.flow.mel_formats.description import MelDescription

GLOWD = MelDescription()
SHIFTED = replace(GLOWD, centre=False)  # HiFi-GAN's framing
F5 = MelDescription(rate_hz=24000, n_mels=100, fmax_hz=12000.0, bank="htk", norm="none")
SOVITS = MelDescription(rate_hz=24000, n_mels=100, fmax_hz=12000.0, centre=False)
COSYVOICE2 = MelDescription(rate_hz=24000, n_fft=1920, win=1920, hop=480, centre=False)
ESPNET = MelDescription(fmin_hz=80.0, fmax_hz=7600.0, log="log10", log_floor=1e-10)
DB_SYMMETRIC = {"log": "db", "scale": 12.5, "offset": -30.0}  # [-4, 4] of -80..20 dB: dB = (x + 4) * 12.5 - 80


@dataclass(frozen=True, slots=True)
class Preset:
    """A format that has a name. `needs_statistics`: its values are (x - mean) / std with numbers of the user's model."""

    name: str
    what: str
    description: MelDescription
    needs_statistics: bool = False


def _preset(name: str, what: str, description: MelDescription, **changes: object) -> Preset:
    needs = bool(changes.pop("needs_statistics", False))
    return Preset(name, what, replace(description, **changes), needs)  # type: ignore[arg-type]


PRESETS: dict[str, Preset] = {preset.name: preset for preset in (
    _preset("glowd", "glowd's own: NVIDIA's Tacotron 2 and WaveGlow", GLOWD),
    _preset("tacotron2", "NVIDIA and SpeechBrain Tacotron 2, SpeechBrain FastSpeech 2", GLOWD),
    _preset("hifigan", "for HiFi-GAN V1..V3, BigVGAN 22khz_80band (fmax 8 kHz)", SHIFTED),
    _preset("matcha", "Matcha-TTS: synthesise()['mel']", SHIFTED),
    _preset("matcha-lj", "Matcha-TTS on LJ Speech, still normalised: decoder_outputs", SHIFTED, scale=2.116, offset=-5.537),
    _preset("cosyvoice1", "CosyVoice 1, GLM-4-Voice", SHIFTED),
    _preset("nemo", "NeMo 22.05 kHz: Tacotron 2, FastPitch, Mixer-TTS, RAD-TTS", GLOWD, log_floor=2.0**-126),
    _preset("nemo-44k", "NeMo 44.1 kHz FastPitch", GLOWD, rate_hz=44100, n_fft=2048, win=2048, hop=512, fmax_hz=22050.0,
            log_floor=2.0**-126),
    _preset("coqui", "Coqui TTS recipes: Tacotron2-DDC, FastPitch, OverFlow", GLOWD, log_floor=1e-8),
    _preset("coqui-db", "Coqui TTS defaults: dB in [-4, 4] (Glow-TTS recipe)", GLOWD, fmax_hz=11025.0, log_floor=1e-8,
            **DB_SYMMETRIC),
    _preset("indextts2", "IndexTTS-2, BigVGAN v2 22khz_80band_256x", SHIFTED, fmax_hz=11025.0),
    _preset("espnet", "ESPnet2 on LJ Speech, PaddleSpeech ljspeech: z-scored", ESPNET, needs_statistics=True),
    _preset("pwg", "ParallelWaveGAN ljspeech: z-scored", ESPNET, needs_statistics=True),
    _preset("espnet-raw", "ESPnet2, ParallelWaveGAN: log10, before the z-score", ESPNET),
    _preset("pwg-24k", "ParallelWaveGAN jsut, vctk, libritts, PaddleSpeech csmsc: z-scored", ESPNET, rate_hz=24000, n_fft=2048,
            win=1200, hop=300, needs_statistics=True),
    _preset("speecht5", "SpeechT5", ESPNET, rate_hz=16000),
    _preset("f5", "F5-TTS, E2-TTS with Vocos", F5),
    _preset("vocos", "Vocos mel 24 kHz", F5, log_floor=1e-7),
    _preset("zipvoice", "ZipVoice (features times 0.1)", F5, log_floor=1e-7, scale=10.0),
    _preset("chattts", "ChatTTS, times its coefficients", F5, needs_statistics=True),
    _preset("gpt-sovits-v3", "GPT-SoVITS v3: [-12, 2] as [-1, 1]", SOVITS, scale=7.0, offset=-5.0),
    _preset("bigvgan-24k", "BigVGAN v2 24khz_100band, F5-TTS with BigVGAN", SOVITS),
    _preset("gpt-sovits-v4", "GPT-SoVITS v4: [-12, 2] as [-1, 1]", SOVITS, rate_hz=32000, n_fft=1280, win=1280, hop=320,
            fmax_hz=16000.0, scale=7.0, offset=-5.0),
    _preset("cosyvoice2", "CosyVoice 2, Chatterbox", COSYVOICE2),
    _preset("cosyvoice3", "CosyVoice 3", COSYVOICE2, fmax_hz=12000.0),
    _preset("vevo", "Amphion Vevo", COSYVOICE2, n_mels=128, fmax_hz=12000.0, scale=8.14**0.5, offset=-4.92),
    _preset("bigvgan-44k", "BigVGAN v2 44khz_128band_512x", SHIFTED, rate_hz=44100, n_fft=2048, win=2048, hop=512,
            n_mels=128, fmax_hz=22050.0),
    _preset("styletts2", "StyleTTS 2, inside: it gives no mel away", F5, n_fft=2048, win=1200, hop=300, n_mels=80, power=2,
            scale=4.0, offset=-4.0),
    _preset("log10", "the voice's bands, log10 in place of ln", GLOWD, log="log10", log_floor=1e-10),
    _preset("db", "the voice's bands in dB: 20 log10", GLOWD, log="db", log_floor=1e-10),
    _preset("db-symmetric", "the voice's bands in dB, -80..20 dB as [-4, 4]", GLOWD, log_floor=1e-10, **DB_SYMMETRIC),
    _preset("db-unit", "the voice's bands in dB, -80..20 dB as [0, 1]", GLOWD, log="db", log_floor=1e-10, scale=100.0,
            offset=-80.0),
)}  # fmt: skip
"""Sources: NVIDIA/tacotron2 hparams.py; speechbrain recipes/LJSpeech/TTS; jik876/hifi-gan config_v*.json; NVIDIA/BigVGAN
configs/; Matcha-TTS matcha/utils/audio.py and configs/data; CosyVoice examples/libritts/*/conf; NeMo
collections/tts/data/dataset.py; coqui TTS/config/shared_configs.py and recipes/ljspeech; index-tts and BigVGAN
configs; espnet2/layers/log_mel.py; ParallelWaveGAN egs/*/voc1/conf; transformers feature_extraction_speecht5.py;
f5_tts/model/modules.py; vocos/feature_extractors.py; GPT-SoVITS TTS_infer_pack/TTS.py; chatterbox s3gen/utils/mel.py;
Amphion Vocoder.json; StyleTTS2 meldataset.py."""

OF_ANY_VOICE = frozenset(("log10", "db", "db-symmetric", "db-unit"))
"""Presets that state scale and floor only: the transform is the voice's, whatever it is."""
SCALE_KEYS = ("log", "log_floor", "scale", "offset")


def preset(name: str) -> Preset:
    """The preset of this name. Raises ValueError, with names that are near."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(PRESETS)}"
    raise ValueError(f"unknown mel format {name!r}; {hint}")


def preset_for(name: str, voice: MelDescription) -> MelDescription:
    """What a preset means for a voice. Raises ValueError."""
    found = preset(name).description
    if name not in OF_ANY_VOICE:
        return found
    return replace(voice, **{key: getattr(found, key) for key in SCALE_KEYS})
