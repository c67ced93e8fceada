"""What a client states about its mels: a name, keys, or both, and how strictly it wants to be held to it.

Rules: no I/O. This is the one reader of the map `open.format` (daemon/PROTOCOL.md), for the gateway and the clients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glowd.flow.mel_formats.conversion import Fit, Verdict, compare
from glowd.flow.mel_formats.description import MelDescription, described
from glowd.flow.mel_formats.presets import preset, preset_for

FLAGS = ("strict", "allow_approximate")


Format = str | Mapping[str, Any] | MelDescription | None
"""How a program names a format: a preset, keys of `open.format`, a description, or nothing: the voice's own."""


def statement_map(format: Format, *, strict: bool = False, allow_approximate: bool = False) -> dict[str, Any]:
    """The map of `open.format` that says this."""
    match format:
        case None:
            stated: dict[str, Any] = {}
        case str():
            stated = {"preset": format}
        case MelDescription():
            stated = format.stated()
        case _:
            stated = dict(format)
    flags = {"strict": strict, "allow_approximate": allow_approximate}
    return stated | {name: True for name, wanted in flags.items() if wanted}


class FormatError(ValueError):
    """The mels that are stated cannot be used with this voice."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A map that was read. `name` is the preset's, "" without one; where nothing is stated `mels` is what the voice wants."""

    mels: MelDescription
    name: str
    strict: bool
    allow_approximate: bool


def read_statement(stated: Mapping[str, Any], voice: MelDescription) -> Statement:
    """Reads the map; keys it lacks are the preset's, else the voice's. Raises FormatError."""
    keys = dict(stated)
    strict, allow = (_flag(keys, name) for name in FLAGS)
    name = keys.pop("preset", "")
    if type(name) is not str:
        raise FormatError(f"mel format key preset is a {type(name).__name__}; allowed: a name, see glowctl formats")
    try:
        mels = described(keys, preset_for(name, voice) if name else voice)
    except ValueError as error:
        raise FormatError(str(error)) from error
    if name and preset(name).needs_statistics and not {"scale", "offset"} & keys.keys():
        raise FormatError(
            f"mels of {name} are normalised by numbers of the model that made them: state scale (its standard deviation) "
            "and offset (its mean), or give its statistics file: glowctl send --statistics FILE"
        )
    return Statement(mels, name, strict, allow)


def _flag(keys: dict[str, Any], name: str) -> bool:
    value = keys.pop(name, False)
    if type(value) is not bool:
        raise FormatError(f"mel format key {name} is {value!r}; allowed: true or false")
    return value


def voice_mels(voice_format: Mapping[str, Any]) -> MelDescription:
    """What a voice wants, of the map in `welcome`. Raises ValueError."""
    return described(voice_format, MelDescription())


def require_usable(statement: Statement, voice: MelDescription, voice_name: str) -> Verdict:
    """The verdict on what is stated. Raises FormatError if it cannot be used, with what differs and what would help."""
    verdict = compare(statement.mels, voice)
    if verdict.fit is Fit.EXACT or (verdict.fit is Fit.APPROXIMATE and statement.allow_approximate):
        return verdict
    about = f"mels of {statement.name} differ" if statement.name else "the mel format differs"
    if verdict.fit is Fit.IMPOSSIBLE:
        helps = "no conversion can mend that: it takes a voice trained for this format (glowlab train, glowlab import)"
    else:
        helps = f"allow_approximate converts them all the same, at {verdict.cost_db:.1f} dB rms; a voice for them costs nothing"
    raise FormatError(f"{about} from voice {voice_name!r} in {verdict.reason}; {helps}")
