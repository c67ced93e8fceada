"""What somebody's mel frames are: the transform they come from, and what was done to its magnitudes.

Rules: numpy and standard library only; gateway and clients use this. A description is a value: it is read from the flat
map that `open.format` carries (daemon/PROTOCOL.md), and every key is checked there.

    magnitude of a band  ->  max(., log_floor)  ->  logarithm `log`  ->  (. - offset) / scale  ->  what is sent
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from glowd.flow.mel import MelFormat

PerBand = float | tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MelDescription:
    """A mel format with its scale and origin. The defaults are those of the published WaveGlow and Tacotron 2."""

    rate_hz: int = 22050
    n_fft: int = 1024
    win: int = 1024
    hop: int = 256
    n_mels: int = 80
    fmin_hz: float = 0.0
    fmax_hz: float = 8000.0
    bank: str = "slaney"
    """The mel scale on which the bands are spaced: slaney (librosa's default) or htk."""
    norm: str = "slaney"
    """Height of the filters: slaney (unit area) or none (height 1)."""
    power: int = 1
    """Exponent of the magnitudes before the bands are summed: 1, or 2 for energies."""
    log: str = "ln"
    """ln, log10, or db (20 log10; of energies 10 log10)."""
    log_floor: float = 1e-5
    """The least magnitude (energy, where power is 2) of which the logarithm is taken."""
    scale: PerBand = 1.0
    offset: PerBand = 0.0
    """The logarithm is value * scale + offset; numbers, or one for each band."""
    centre: bool = True
    """Frame f is centred on sample f * hop; false: on f * hop + hop / 2."""
    padding: float | None = None
    """Frames that hold this value in every band are padding, and become silence. None: there are none."""

    @property
    def mel_format(self) -> MelFormat:
        """The transform, without scale and origin."""
        return MelFormat(**{field.name: getattr(self, field.name) for field in fields(MelFormat)})

    def stated(self) -> dict[str, Any]:
        """The map of `open.format` that says all of this."""
        listed = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in listed.items() if value is not None}


class Key(NamedTuple):
    """What a key of the map may hold."""

    allowed: str
    accepts: Callable[[Any], bool]


def described(stated: Mapping[str, Any], base: MelDescription) -> MelDescription:
    """`base` with the keys that are stated. Raises ValueError for an unknown key or a value that is not allowed."""
    if unknown := sorted(stated.keys() - KEYS.keys()):
        raise ValueError(f"unknown mel format key {unknown[0]!r}; known: preset, {', '.join(KEYS)}")
    for name, value in stated.items():
        if not KEYS[name].accepts(value):
            raise ValueError(f"mel format key {name} is {_shown(value)}; allowed: {KEYS[name].allowed}")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stated.items()}
    made = replace(base, **values)
    _check(made)
    return made


def _check(made: MelDescription) -> None:
    """Refuse what contradicts itself."""
    for name in ("scale", "offset"):
        value = getattr(made, name)
        if isinstance(value, tuple) and len(value) != made.n_mels:
            raise ValueError(f"mel format key {name} has {len(value)} numbers; there are {made.n_mels} bands")
    if not made.fmin_hz < made.fmax_hz <= made.rate_hz / 2:
        raise ValueError(
            f"mel format has fmin_hz {made.fmin_hz:g} and fmax_hz {made.fmax_hz:g}; "
            f"allowed: fmin_hz < fmax_hz <= {made.rate_hz / 2:g}, half of rate_hz"
        )
    if made.win > made.n_fft:
        raise ValueError(f"mel format has win {made.win}; allowed: at most n_fft, {made.n_fft}")


def _shown(value: Any) -> str:
    return repr(value)[:60] if not isinstance(value, dict) else "a map"


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def _whole(low: int, high: int) -> Key:
    return Key(f"an integer, {low}..{high}", lambda value: _is_number(value, low, high) and value == int(value))


def _number(low: float, high: float) -> Key:
    return Key(f"a number, {low:g}..{high:g}", lambda value: _is_number(value, low, high))


def _word(*words: str) -> Key:
    return Key(" or ".join(words), lambda value: type(value) is str and value in words)


def _per_band(allowed: str, accepts: Callable[[float], bool]) -> Key:
    def accepts_all(value: Any) -> bool:
        numbers = value if isinstance(value, list | tuple) else [value]
        return bool(numbers) and all(_is_number(number, -1e4, 1e4) and accepts(number) for number in numbers)

    return Key(f"{allowed}, or a list of one for each band", accepts_all)


KEYS: dict[str, Key] = {
    "rate_hz": _whole(1000, 384_000),
    "n_fft": _whole(16, 16_384),
    "win": _whole(16, 16_384),
    "hop": _whole(1, 16_384),
    "n_mels": _whole(1, 512),
    "fmin_hz": _number(0, 192_000),
    "fmax_hz": _number(1, 192_000),
    "bank": _word("slaney", "htk"),
    "norm": _word("slaney", "none"),
    "power": _whole(1, 2),
    "log": _word("ln", "log10", "db"),
    "log_floor": _number(1e-45, 1.0),
    "scale": _per_band("a number above 0, at most 10000", lambda number: number > 0),
    "offset": _per_band("a number, -10000..10000", lambda number: True),
    "centre": Key("true or false", lambda value: type(value) is bool),
    "padding": _number(-1000, 1000),
}
"""What `open.format` may state, beside `preset` (presets.py), `strict` and `allow_approximate`."""
