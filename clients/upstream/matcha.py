"""Matcha-TTS as an ONNX file that was exported without a vocoder (`python -m matcha.onnx.export`): English.

Rules: onnxruntime (extra `matcha`) is imported when it is used; espeak-ng supplies the phonemes, as in Matcha's training. A
sentence is made at once. The noise is in the file: two renderings differ.
"""

from collections.abc import Generator
from typing import Any

import numpy as np

from glowd.clients.upstream.interface import Manner, Speech, UpstreamError
from glowd.clients.upstream.packages import imported
from glowd.clients.upstream.phonemes import symbol_ids
from glowd.flow.mel import Floats, MelFormat

TEMPERATURE = np.float32(0.667)
INPUTS, OUTPUTS = {"x", "x_lengths", "scales"}, {"mel", "mel_lengths"}


class Matcha:
    """The model in a file; `speaker` is the number of a speaker of a model with several, "" for the first.

    Raises UpstreamError if there is no such file, or it is no such model.
    """

    name = "matcha"

    def __init__(self, path: str, speaker: str = "") -> None:
        runtime = imported("onnxruntime", "onnxruntime", "matcha")
        if speaker and not speaker.isdecimal():
            raise UpstreamError(f"the voice of a Matcha model is the number of a speaker; got {speaker!r}")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the edge to onnxruntime, whose exceptions have no common class
            raise UpstreamError(f"cannot load {path}: {str(error).splitlines()[0]}") from error
        self._several = check_interface(self._session, path)
        if speaker and not self._several:
            raise UpstreamError(f"{path} has one speaker; leave the voice {speaker!r} out")
        self._speaker = np.array([int(speaker or 0)], np.int64)

    def speak(self, text: str, wanted: MelFormat, manner: Manner = Manner()) -> Speech:
        """The text as Matcha's mels, at its own pitch."""
        return Speech({"preset": "matcha"}, self._frames(text, manner.rate))

    def _frames(self, text: str, rate: float) -> Generator[Floats, None, None]:
        ids = symbol_ids(text)
        if not ids:
            return
        given: dict[str, Any] = {
            "x": np.array([ids], np.int64),
            "x_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([TEMPERATURE, 1 / rate], np.float32),
        }
        if self._several:
            given["spks"] = self._speaker
        try:
            mel, frames = self._session.run(["mel", "mel_lengths"], given)
        except Exception as error:  # the edge to onnxruntime, whose exceptions have no common class
            raise UpstreamError(f"the Matcha model failed: {str(error).splitlines()[0]}") from error
        yield np.array(mel[0, :, : int(frames[0])].T, np.float32, order="C")


def check_interface(session: Any, path: str) -> bool:
    """Whether the model has several speakers. Raises UpstreamError if it has not the interface of Matcha's export."""
    inputs = {one.name for one in session.get_inputs()}
    outputs = {one.name for one in session.get_outputs()}
    if "wav" in outputs:
        raise UpstreamError(f"{path} makes samples: it was exported with a vocoder; export it without --vocoder-name")
    if INPUTS - inputs or OUTPUTS - outputs:
        raise UpstreamError(
            f"{path} takes {', '.join(sorted(inputs))} and makes {', '.join(sorted(outputs))}; a Matcha export takes "
            f"{', '.join(sorted(INPUTS))} and makes {', '.join(sorted(OUTPUTS))}"
        )
    return "spks" in inputs
