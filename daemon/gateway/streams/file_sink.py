"""The file sink: WAV files in the recordings directory, whose names are claimed when a stream is opened.

Rules: files are made by flow/new_file.py, which never overwrites one. What the file system refuses is a WireError.
"""

import contextlib
import copy
import wave
from collections.abc import Callable, Iterable
from pathlib import Path

from glowd.daemon.config import FileSettings
from glowd.daemon.gateway.streams.accounts import Account
from glowd.daemon.gateway.streams.sinks import AudioChunk
from glowd.daemon.runtime.quotas import Quotas
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.codec import to_s16
from glowd.flow.new_file import NameTakenError, NewFile, make_folder, reason

WAV_HEADER_BYTES = 44


class Recordings:
    """The directory of file sinks, and the modes of what is made in it."""

    def __init__(self, settings: FileSettings) -> None:
        self.directory = Path(settings.directory)
        self._file_mode, self._folder_mode = int(settings.file_mode, 8), int(settings.folder_mode, 8)
        self._account: Account | None = None
        self._quotas: Quotas | None = None

    def of(self, account: Account, quotas: Quotas) -> "Recordings":
        """Those of one peer."""
        own = copy.copy(self)
        own._account, own._quotas = account, quotas
        return own

    def charge(self, path: Path, count: int) -> None:
        """So many bytes are written into a recording. Raises WireError if its peer may not write them."""
        if self._account and self._quotas:
            self._account.add(path, count, self._quotas)

    def path(self, name: str) -> Path:
        """Of the recording of that name."""
        return self.directory / f"{name}.wav"

    def claim(self, name: str, resume: bool = False) -> NewFile:
        """Claim a name; with `resume`, and with its samples, if a lost gateway began it. Raises WireError."""
        try:
            if self._account and self._quotas:
                self._account.open(self.path(name), self._quotas)
            make_folder(self.directory, self._folder_mode)
            return NewFile(self.path(name), mode=self._file_mode, resume=resume)
        except NameTakenError as error:
            raise taken(error, self.directory) from error
        except OSError as error:
            text = f"file sink: cannot write {self.directory}: {reason(error)}"
            raise WireError(Code.SINK_UNAVAILABLE, text) from error


class ClaimedFiles:
    """The names of a stream's file sinks: those of its first utterance are claimed at once, all or none. Raises WireError.

    `goes_on`: the utterance was begun by a lost gateway, which may have completed the file.
    """

    def __init__(self, recordings: Recordings, sinks: Iterable[str], number: int, goes_on: bool) -> None:
        self._recordings, self._claimed = recordings, dict[str, NewFile]()
        try:
            for sink in dict.fromkeys(sinks):
                kind, _, name = sink.partition(":")
                numbered = _numbered(name, number)
                if kind == "file" and not (goes_on and recordings.path(numbered).exists()):
                    self._claimed[numbered] = recordings.claim(numbered, goes_on)
        except WireError:
            self.release()
            raise

    def take(self, name: str, number: int, goes_on: bool) -> NewFile | None:
        """The file of an utterance, claimed now if it is not the first; None if it is complete already. Raises WireError."""
        numbered = _numbered(name, number)
        if numbered in self._claimed:
            return self._claimed.pop(numbered)
        return None if goes_on else self._recordings.claim(numbered)

    def release(self) -> None:
        """Give up the names that were not used."""
        while self._claimed:
            self._claimed.popitem()[1].keep()


def taken(error: NameTakenError, directory: Path) -> WireError:
    """For the client, which knows files by their names in the directory."""
    return WireError(Code.SINK_UNAVAILABLE, f"file sink: {error}".replace(f"{directory}/", ""))


def _numbered(name: str, number: int) -> str:
    return name if number == 0 else f"{name}-{number}"


class FileSink:
    """A 16-bit WAV file. It gets its name once it is complete; after a flush its part stays, until the name is claimed again.

    One that a lost gateway began keeps what it has, and the rest is appended; it must have `heard_samples` at least.
    """

    def __init__(
        self,
        new: NewFile,
        rate_hz: int,
        heard_samples: int = 0,
        charge: Callable[[Path, int], object] = lambda path, count: None,
    ) -> None:
        """`charge`: called with the path and the bytes that it gets; raises WireError if it may not have them."""
        self.delivered_samples, self.finished, self._charge = 0, False, charge
        self._new, self._rate_hz = new, rate_hz
        try:
            self._wave = self._go_on(heard_samples) if new.resumed else self._begin()
        except OSError as error:
            raise WireError(Code.SINK_UNAVAILABLE, f"file sink: {new.part.name}: {reason(error)}") from error

    def _begin(self) -> wave.Wave_write:
        self._new.file.seek(0)
        made = wave.open(self._new.file, "wb")  # noqa: SIM115  (closed by `close`)
        made.setparams((1, 2, self._rate_hz, 0, "NONE", ""))
        return made

    def _go_on(self, heard_samples: int) -> wave.Wave_write:
        """Write the header anew, and keep all samples. Raises WireError if some that were heard are missing."""
        file, part = self._new.file, self._new.part
        samples = max(0, part.stat().st_size - WAV_HEADER_BYTES) // 2
        if samples < heard_samples:
            self._new.keep()
            text = f"file sink: {part.name} ends at sample {samples}, before sample {heard_samples}"
            raise WireError(Code.SINK_UNAVAILABLE, f"{text}; speak the utterance from its beginning")
        file.seek(WAV_HEADER_BYTES)
        kept = file.read(2 * samples)
        made = self._begin()
        made.writeframes(kept)
        self.delivered_samples = samples
        return made

    def write(self, chunk: AudioChunk) -> None:
        """See Sink. Raises WireError if the file cannot be written, or somebody took its name."""
        try:
            data = to_s16(chunk.after(self.delivered_samples).audio).tobytes()
            self._charge(self._new.path, len(data))
            self._wave.writeframes(data)
            self._new.file.flush()  # what counts as delivered must outlive this process
            if chunk.last:
                self._wave.close()
                self._new.publish()
        except NameTakenError as error:
            raise taken(error, self._new.path.parent) from error
        except OSError as error:
            raise WireError(Code.SINK_UNAVAILABLE, f"file sink: {self._new.path.name}: {reason(error)}") from error
        self.delivered_samples, self.finished = max(self.delivered_samples, chunk.end_sample), chunk.last

    def pause(self, paused: bool) -> None:
        """Does nothing: a file has no playback to hold."""

    def close(self) -> None:
        """See Sink."""
        if self._new.closed:
            return
        with contextlib.suppress(OSError):  # the disk is full: the part has what could be written
            self._wave.close()
        with contextlib.suppress(OSError):
            self._new.keep()
