"""A stream's frames on their way in: from what its client states them to be to what its voice wants, and a look at them.

Rules: no socket, no clock. The conversion stands here and not in the clients, so that a client in any language states a
format and needs no code for it; it is one multiplication of each frame at most (flow/mel_formats/conversion.py). What
cannot be used is a WireError; what is only suspicious is a Notice, once for each kind in a stream.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from glowd.daemon.gateway.streams.notices import Notice
from glowd.daemon.wire import MEL_HIGH, MEL_LOW, Code, Mel, WarningCode, WireError
from glowd.daemon.wire.fields import Array
from glowd.flow.mel_formats.conversion import Converter, Fit
from glowd.flow.mel_formats.plausibility import Kind, Plausibility, Suspicion, out_of_range
from glowd.flow.mel_formats.statement import read_statement, require_usable, voice_mels

CODES = {
    Kind.SCALE: WarningCode.MEL_SCALE,
    Kind.FLOOR: WarningCode.MEL_FLOOR,
    Kind.CONSTANT: WarningCode.MEL_CONSTANT,
    Kind.PADDING: WarningCode.MEL_PADDING,
    Kind.ORDER: WarningCode.MEL_ORDER,
}


class MelIntake:
    """Converts and judges the frames of one stream. Owner: its session."""

    def __init__(self, stated: Mapping[str, Any], voice_format: Mapping[str, Any], voice: str) -> None:
        """`stated`: the map of `open`. Raises WireError if such frames cannot be used with the voice."""
        try:
            self._voice = voice_mels(voice_format)
            statement = read_statement(stated, self._voice)
            verdict = require_usable(statement, self._voice, voice)
        except ValueError as error:
            raise WireError(Code.WRONG_FORMAT, str(error)) from error
        self.strict, self.bins = statement.strict, statement.mels.n_mels
        self._converter = Converter(statement.mels, self._voice) if statement.mels != self._voice else None
        self._told = set[Kind]()
        self.notices = list[Notice]()
        """What is to be said when the stream has been opened."""
        if verdict.fit is Fit.APPROXIMATE:
            text = f"the frames are converted at a cost of {verdict.cost_db:.1f} dB rms, because of {verdict.reason}"
            self.notices.append(Notice(WarningCode.MEL_APPROXIMATE, text))
        self.begin()

    def begin(self) -> None:
        """An utterance begins: it is judged by its own frames."""
        self._plausibility = Plausibility(self._voice)

    def convert(self, mel: Mel) -> Array:
        """The voice's frames [n, its bands]. Raises WireError for values beyond any natural logarithm."""
        frames = self._converter.convert(mel.payload) if self._converter else mel.payload
        low, high = frames.item(frames.argmin()), frames.item(frames.argmax())  # quicker than min and max
        if low < MEL_LOW or high > MEL_HIGH:
            row, band = (int(index) for index in np.argwhere((frames < MEL_LOW) | (frames > MEL_HIGH))[0])
            text = (
                f"frame {mel.first_frame + row} holds {frames[row, band]:.2f} in band {band}, and the values reach from "
                f"{low:.2f} to {high:.2f}; allowed: natural logs, {MEL_LOW:g}..{MEL_HIGH:g}; {out_of_range(low, high)}"
            )
            raise WireError(Code.OUT_OF_RANGE, text, mel.stream)
        return frames

    def judge(self, frames: Array) -> list[Notice]:
        """What is suspicious now that these frames have come, after any conversion."""
        return self._notices(self._plausibility.update(frames))

    def finish(self) -> list[Notice]:
        """What is suspicious of an utterance that has all its frames."""
        return self._notices(self._plausibility.finish())

    def _notices(self, suspicions: list[Suspicion]) -> list[Notice]:
        if not suspicions:
            return []
        fresh = [suspicion for suspicion in suspicions if self.strict or suspicion.kind not in self._told]
        self._told |= {suspicion.kind for suspicion in fresh}
        return [Notice(CODES[suspicion.kind], suspicion.text, suspicion.first_frame) for suspicion in fresh]
