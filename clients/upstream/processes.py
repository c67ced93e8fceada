"""A program that is given a text and writes: read while it runs, ended when it is no longer wanted.

Rules: standard library only. A program that writes nothing for too long, or ends with another status than 0, is an
UpstreamError with the first line that it wrote to standard error.
"""

import contextlib
import io
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, TypeAlias

from glowd.clients.upstream.interface import UpstreamError

END_S = 2.0
"""A program that was told to end is killed after this time."""


class SilentProgram(UpstreamError):
    """The program has written nothing for too long."""


class PatientReader(io.RawIOBase):
    """Standard output of a program. Raises SilentProgram when nothing comes for `patience_s`."""

    def __init__(self, pipe: IO[bytes], patience_s: float, silent: str) -> None:
        self._pipe, self._patience_s, self._silent = pipe, patience_s, silent

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]  # narrower than Buffer
        if not select.select([self._pipe], [], [], self._patience_s)[0]:
            raise SilentProgram(f"{self._silent} within {self._patience_s:g} s")
        data = self._pipe.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


Output: TypeAlias = "io.BufferedReader[Any]"


@contextlib.contextmanager
def output_of(command: Sequence[str], text: str, *, patience_s: float, about: str, missing: str) -> Iterator[Output]:
    """The output of a program that reads `text` on standard input; `about` names it in errors. It is ended with the block.

    Raises UpstreamError: `missing` if the program is not installed; its own complaint if the output was read to its end
    and the status is not 0, or if the block raises ValueError.
    """
    if shutil.which(command[0]) is None:
        raise UpstreamError(missing)
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaints:
        given.write(text.encode("utf-8", "replace"))
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=complaints, bufsize=0)
        assert process.stdout is not None, "it is a pipe"
        silent = f"{about} has not spoken {len(text)} characters"
        try:
            with io.BufferedReader(PatientReader(process.stdout, patience_s, silent)) as output:
                yield output
                if not output.read(1) and (status := process.wait(patience_s)):
                    raise ValueError(f"status {status}")
        except ValueError as error:
            end(process)
            raise UpstreamError(f"{about} failed: {complaint_of(complaints) or error}") from error
        finally:
            end(process)


def complaint_of(complaints: IO[bytes]) -> str:
    """The first line on standard error, "" if there is none."""
    complaints.seek(0)
    lines = complaints.read(1 << 16).decode(errors="replace").strip().splitlines()
    return lines[0] if lines else ""


def end(process: "subprocess.Popen[bytes]") -> None:
    """End the program, if it still runs."""
    assert process.stdout is not None, "it is a pipe"
    process.stdout.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
