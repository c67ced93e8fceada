"""Utterances one after the other without silence between them: each is sent while the one before still sounds.

Rules: knows no frames and no output. Every utterance has a stream of its own, which the device plays after that of the one
before; at most two are open.
"""

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

from glowd.clients import errors
from glowd.clients.client import Stream

OpenStream = Callable[[str, str, int], Stream]
"""Called with the name of the stream, of the one that it comes after, and the number of the utterance."""


class Chain:
    """The streams of one text or recording. An exception flushes what sounds and drops what would follow."""

    def __init__(self, name: str, open_stream: OpenStream) -> None:
        """`name`: of the first stream; "" for a new one."""
        self._name, self._open_stream = name, open_stream
        self._streams: list[Stream] = []
        self._utterances = 0

    def next(self) -> Stream:
        """A stream for the next utterance. If there is no room for a second one, it waits until the first has ended."""
        number, self._utterances = self._utterances, self._utterances + 1
        if number == 0:
            stream = self._open_stream(self._name, "", 0)
            self._name = stream.name
        else:
            stream = self._follow(f"{self._name[:54]}-{number}", number)
        self._streams.append(stream)
        return stream

    def _follow(self, name: str, number: int) -> Stream:
        try:
            return self._open_stream(name, self._streams[-1].name, number)
        except errors.Refused:
            self.finish()
            return self._open_stream(name, "", number)

    def finish(self, but: int = 0) -> None:
        """Wait until the utterances have been played, all but the last so many, and close their streams."""
        while len(self._streams) > but:
            self._streams[0].wait_played()
            self._streams.pop(0).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
            else:
                self._flush()
        finally:
            for stream in self._streams:
                stream.close()

    def _flush(self) -> None:
        for stream in self._streams:
            with contextlib.suppress(errors.GlowdError):
                stream.flush()
