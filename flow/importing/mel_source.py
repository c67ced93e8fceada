"""The mel format of an imported checkpoint, and where each of its values comes from.

Rules: the weights do not say the sample rate, the hop or the band; nothing here is guessed without saying so. A value comes
from the command line, else from the checkpoint itself, else from NVIDIA's config.json beside it, else it is assumed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from glowd.flow.mel import MelFormat
from glowd.flow.options import OptionError

CONFIG = "config.json"
MAX_CONFIG_BYTES = 1 << 20
NVIDIA_NAMES = {
    "rate_hz": "sampling_rate", "n_fft": "filter_length", "hop": "hop_length", "win": "win_length",
    "fmin_hz": "mel_fmin", "fmax_hz": "mel_fmax", "log_floor": "log_floor",
}  # fmt: skip
"""The names of MelFormat in the table `data_config` of NVIDIA's config.json."""
TOLD = {"rate_hz": ("Hz", "--rate"), "hop": ("samples a frame", "--hop"), "fmax_hz": ("Hz at most", "--fmax")}
"""Unit and option of the values that a user is told."""
ASSUMED = "assumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenMel:
    """What the command line says."""

    rate_hz: int | None = None
    hop: int | None = None
    fmax_hz: float | None = None


@dataclass(frozen=True, slots=True)
class MelSource:
    """A format; `origins` says of each of NVIDIA_NAMES where its value comes from."""

    format: MelFormat
    origins: Mapping[str, str]

    def lines(self) -> list[str]:
        """What a user should know: the values of TOLD with their origins, and how to give those that were assumed."""
        values = {key: f"{getattr(self.format, key):g} {unit}" for key, (unit, _) in TOLD.items()}
        said = [f"mel: {', '.join(f'{value} ({self.origins[key]})' for key, value in values.items())}"]
        assumed = [key for key in TOLD if self.origins[key] == ASSUMED]
        if assumed:
            options = ", ".join(TOLD[key][1] for key in assumed)
            said.append(
                f"note: {', '.join(values[key] for key in assumed)}: assumed, as neither the file nor a {CONFIG} beside it "
                f"says so; if the voice was trained otherwise, import it with {options}"
            )
        return said


def find_mel(source: Path, hints: Mapping[str, Any], given: GivenMel) -> MelSource:
    """The format of the checkpoint `source`, whose own metadata are `hints`, for any number of bands.

    Raises ValueError for values that contradict each other or are not allowed.
    """
    of_options = {key: value for key, value in asdict(given).items() if value is not None}
    of_file = _values({key: hints.get(name, hints.get(key)) for key, name in NVIDIA_NAMES.items()})
    of_config = _read_config(source.parent / CONFIG)
    if "hop" in of_options and of_file.get("hop", of_options["hop"]) != of_options["hop"]:
        raise ValueError(f"--hop is {of_options['hop']}; the file's upsampling has a stride of {of_file['hop']}")
    found = of_config | of_file | of_options
    origins = dict.fromkeys(NVIDIA_NAMES, ASSUMED)
    for origin, values in ((CONFIG, of_config), ("the file", of_file), ("given", of_options)):
        origins |= dict.fromkeys(values, origin)
    return MelSource(_format(found), origins)


def _format(values: dict[str, Any]) -> MelFormat:
    """A format of these values, the others those of the published WaveGlow as far as the rate allows."""
    rate_hz = values.get("rate_hz", MelFormat().rate_hz)
    values = {"fmax_hz": min(MelFormat().fmax_hz, rate_hz / 2)} | values
    try:
        made = replace(MelFormat(), **values)
    except OptionError as error:
        raise ValueError(f"mel format: {error}") from None
    if made.fmax_hz > made.rate_hz / 2:
        raise ValueError(f"fmax_hz is {made.fmax_hz:g}; at {made.rate_hz} Hz at most {made.rate_hz / 2:g} is possible")
    return made


def _values(found: Mapping[str, Any]) -> dict[str, int | float]:
    """What is a number, as MelFormat declares it: a file may say 22050.0 for a whole number."""
    numbers = {key: value for key, value in found.items() if type(value) in (int, float)}
    for key, value in numbers.items():
        if type(getattr(MelFormat(), key)) is int and float(value).is_integer():
            numbers[key] = int(value)
    return numbers


def _read_config(path: Path) -> dict[str, Any]:
    """The values of `data_config` in a config.json; none if there is no such file, or it is of another program."""
    if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); mend it, or move it away and give --rate") from None
    data = content.get("data_config") if isinstance(content, dict) else None
    if not isinstance(data, dict):
        return {}
    return _values({key: data.get(name) for key, name in NVIDIA_NAMES.items()})
