"""The geometry of a new network: a preset, a mel format, and what the `voice` table of a run file changes of them.

preset = "streaming"    the default geometry, which streams and has a source: WaveGlowConfig.sourced
                        (flow/network/waveglow.py)
preset = "plain"        the streaming one without a source: WaveGlowConfig
preset = "stock"        the published WaveGlow
preset = "wavenet"      WaveNetConfig (flow/network/wavenet.py)
mel = "cosyvoice2"      the mels that it reads (mel_formats/voice.py)

Another mel format changes what depends on rate, hop and bands: the group, the levels of normalisation, the harmonics below half
the rate. What the table states is kept.
"""

from dataclasses import replace
from typing import Any

from glowd.flow.mel import MelFormat
from glowd.flow.network.registry import Config
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.network.wavenet import WaveNetConfig
from glowd.flow.options import OptionError
from glowd.flow.training.settings import TrainError
from glowd.flow.training.voice_mel import groups_for, level_shift, voice_mel

PRESETS: dict[str, Config] = {
    "streaming": WaveGlowConfig.sourced(),
    "plain": WaveGlowConfig(),
    "stock": WaveGlowConfig.stock(),
    "wavenet": WaveNetConfig(),
}


def geometry(table: dict[str, Any]) -> Config:
    """A geometry from the `voice` table of a run file. Raises TrainError for an unknown key or an impossible value."""
    table = dict(table)
    preset = table.pop("preset", "streaming")
    if preset not in PRESETS:
        raise TrainError(f"voice preset is {preset!r}; known: {', '.join(PRESETS)}")
    base, mel = PRESETS[preset], voice_mel(table.pop("mel", {}))
    if mel == base.mel:
        return _config(base, table)
    if "group" in table:
        return _config(base, _adapted(base, mel, table["group"]) | table)
    return _of_nearest_group(base, mel, table)


def _config(base: Config, changes: dict[str, Any]) -> Config:
    try:
        return type(base).from_dict(base.to_dict() | changes)
    except OptionError as error:
        raise TrainError(f"voice geometry: {error}") from None


def _of_nearest_group(base: Config, mel: MelFormat, table: dict[str, Any]) -> Config:
    """The geometry with the size of a group that lasts about as long as the base's, of those that are possible."""
    problems = []
    for group in groups_for(mel, base.group):
        try:
            return _config(base, _adapted(base, mel, group) | table)
        except TrainError as error:
            problems.append(str(error))
    odd = f"; the hop, {mel.hop}, is odd, and a group is an even divisor of it" if mel.hop % 2 else ""
    raise TrainError(problems[0] + odd)


def _adapted(base: Config, mel: MelFormat, group: int) -> dict[str, Any]:
    """What another mel format changes of a geometry, as a table."""
    shift = level_shift(mel)
    changed: dict[str, Any] = {"mel": mel.to_dict(), "group": group, "mel_mean": round(base.mel_mean + shift, 2)}
    if isinstance(base, WaveNetConfig):
        return changed
    if base.mel_highest is not None:
        changed["mel_highest"] = round(base.mel_highest + shift, 2)
    if base.source is not None:
        top_hz = min(base.source.top_hz, mel.rate_hz / 2)
        changed["source"] = replace(base.source, top_hz=top_hz).to_dict()
    if base.conditioning == "upsample":
        changed |= {"cond_channels": mel.n_mels * group, "upsample_kernel": 4 * mel.hop}
    return changed
