"""Upstreams by the names that users give them.

Rules: an upstream is loaded when it is opened, never before.
"""

import importlib.util
import os

from glowd.clients.upstream.callable import PythonFunction
from glowd.clients.upstream.espeak import Espeak
from glowd.clients.upstream.hibari import Hibari
from glowd.clients.upstream.interface import Upstream, UpstreamError
from glowd.clients.upstream.matcha import Matcha
from glowd.clients.upstream.program import Program

NAMES = ("espeak-ng", "hibari", "matcha:FILE.onnx", "python:MODULE:FUNCTION", "program:COMMAND")
VARIABLE = "GLOWD_TTS"


def default_name() -> str:
    """$GLOWD_TTS, else hibari if it is installed, else espeak-ng."""
    installed = importlib.util.find_spec("hibari") is not None
    return os.environ.get(VARIABLE, "") or ("hibari" if installed else "espeak-ng")


def open_upstream(name: str = "", voice: str = "") -> Upstream:
    """The upstream of this name (one of NAMES), "" for the default, with a voice of its own, "" for its default.

    Raises UpstreamError, with the command that installs what is missing.
    """
    name = name or default_name()
    kind, _, rest = name.partition(":")
    match kind:
        case "espeak-ng" if not rest:
            return Espeak(voice) if voice else Espeak()
        case "hibari" if not rest:
            return Hibari(voice)
        case "matcha" if rest:
            return Matcha(rest, voice)
        case "python" if rest and not voice:
            return PythonFunction(rest)
        case "program" if rest and not voice:
            return Program(rest)
    if voice and kind in ("python", "program"):
        raise UpstreamError(f"{name} has no voices to choose from; leave the voice {voice!r} out")
    raise UpstreamError(f"{name!r} names nothing that speaks; expected one of {', '.join(NAMES)}")
