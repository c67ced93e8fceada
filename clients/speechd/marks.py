"""Where the marks of a message are, and which of them the listener has heard.

Rules: no I/O. Places are frames from the beginning of the message. Owner: the message's thread.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from glowd.clients.upstream import pieces_of_text
from glowd.clients.upstream.ssml import Piece
from glowd.flow.mel import Floats


class Marks:
    """The marks of pieces that are spoken as `texts`, one after the other."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.texts: list[str] = []
        self._frames = 0
        self._after: list[tuple[int, tuple[str, ...]]] = []  # the number of texts before each place
        for piece in pieces:
            self.texts += pieces_of_text(piece.text)
            self._after.append((len(self.texts), piece.marks))
        self._placed: deque[tuple[int, str]] = deque()

    def noted(self, parts: Iterable[tuple[int, Floats]]) -> Iterator[tuple[int, Floats]]:
        """The same frames, each with the number of its text; the places of the marks between them are noted."""
        for number, frames in parts:
            self._place(number)
            self._frames += len(frames)
            yield number, frames
        self._place(len(self.texts))

    def _place(self, texts: int) -> None:
        while self._after and self._after[0][0] <= texts:
            _, names = self._after.pop(0)
            self._placed.extend((self._frames, name) for name in names)

    @property
    def is_waited_for(self) -> bool:
        """Whether a mark that was placed is still to be heard."""
        return bool(self._placed)

    def heard(self, frames: int) -> list[str]:
        """The marks that are reached when so many frames have been heard; each is named once."""
        names = []
        while self._placed and self._placed[0][0] <= frames:
            names.append(self._placed.popleft()[1])
        return names
