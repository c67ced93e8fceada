"""The geometry of a new network: a preset, and what the `voice` table of a run file changes of it.

preset = "streaming"    the default geometry, which streams and has a source: WaveGlowConfig.sourced
                        (flow/network/waveglow.py)
preset = "plain"        the streaming one without a source: WaveGlowConfig
preset = "stock"        the published WaveGlow
preset = "wavenet"      WaveNetConfig (flow/network/wavenet.py)
"""

from typing import Any

from glowd.flow.network.registry import Config
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.network.wavenet import WaveNetConfig
from glowd.flow.options import OptionError
from glowd.flow.training.settings import TrainError

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
    base = PRESETS[preset]
    try:
        return type(base).from_dict(base.to_dict() | table)
    except OptionError as error:
        raise TrainError(f"voice geometry: {error}") from None
