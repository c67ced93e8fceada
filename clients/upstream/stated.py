"""What the map of `open.format` says of frames that are not made here.

Rules: no I/O. The daemon converts and refuses; here only the shape is needed.
"""

from typing import Any

from glowd.clients.upstream.interface import UpstreamError
from glowd.flow.mel import MelFormat
from glowd.flow.mel_formats.statement import FormatError, read_statement, voice_mels


def bins_of(stated: dict[str, Any], wanted: MelFormat) -> int:
    """The bands of frames. Raises UpstreamError if the map cannot be read."""
    try:
        return read_statement(stated, voice_mels(wanted.to_dict())).mels.n_mels
    except FormatError as error:
        raise UpstreamError(f"the mel format that is stated cannot be used: {error}") from error
