"""A Python function that a user brings: it is given a text and yields mels, as CosyVoice's decoder makes them.

Rules: the function is others' code: whatever it raises is an UpstreamError that names it.

    def speak(text, rate=1.0):  # `rate` and `semitones` are given if the function has them
        for token_chunk in model.tokens(text):
            yield model.flow(token_chunk)  # array or tensor, [frames, bins] or [bins, frames]

    speak.mel_format = "cosyvoice1"  # a preset or keys of open.format; without it, the voice's own
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

from glowd.clients.mel_arrays import as_frames
from glowd.clients.upstream.interface import Manner, Speech, UpstreamError
from glowd.clients.upstream.pcm import at_rate
from glowd.clients.upstream.stated import bins_of
from glowd.flow.mel import Floats, MelFormat
from glowd.flow.mel_formats.statement import statement_map


class PythonFunction:
    """The function FUNCTION of "MODULE:FUNCTION"; the module is looked for in the current folder too.

    Raises UpstreamError if there is none.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self._function = found(path)
        self._knows = inspect.signature(self._function).parameters.keys()

    def speak(self, text: str, wanted: MelFormat, manner: Manner = Manner()) -> Speech:
        """The text in the function's own format, or in `wanted` if it states none."""
        stated = statement_map(getattr(self._function, "mel_format", wanted.to_dict()))
        known = {"rate": manner.rate, "semitones": manner.semitones}
        given = {name: value for name, value in known.items() if name in self._knows}
        frames = self._frames(text, bins_of(stated, wanted), given)
        return Speech(stated, frames if "rate" in given else at_rate(frames, manner.rate))

    def _frames(self, text: str, bins: int, given: dict[str, float]) -> Generator[Floats, None, None]:
        try:
            for mel in chunks_of(self._function(text, **given)):
                if len(frames := as_frames(mel, bins, bins_first=True)):
                    yield frames
        except Exception as error:  # the edge to others' code
            raise UpstreamError(f"{self.name} failed: {type(error).__name__}: {error}") from error


def chunks_of(result: Any) -> Iterable[Any]:
    """What the function yields; a whole mel that it returns is one chunk."""
    return [result] if hasattr(result, "shape") else result


def found(path: str) -> Callable[..., Any]:
    """The function. Raises UpstreamError."""
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise UpstreamError(f"{path!r} names no Python function; expected MODULE:FUNCTION, such as my_tts:speak")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # the edge to others' code: a module may raise anything when it is imported
        raise UpstreamError(
            f"cannot import {module}: {type(error).__name__}: {error}; it is looked for in {here} and among the "
            f"packages of {sys.executable}"
        ) from error
    if not callable(function):
        raise UpstreamError(f"{module} has no function {name}")
    return function
