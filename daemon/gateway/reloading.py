"""The gateway takes over new settings, all at the same moment: between two messages, when the engines of new voices answer.

Rules: no socket, time is passed in; knows of the parts only that they `use` a configuration. What a stream that is open was given
stays: its engine, its limits.
"""

from collections.abc import Callable, Sequence

from glowd.daemon.config import Config
from glowd.daemon.config_reader import from_text
from glowd.daemon.gateway.placement.roster import Roster
from glowd.daemon.runtime.status import NewSettings


class Reloading:
    """Settings that wait to be used. Owner: the gateway's only thread."""

    def __init__(
        self, roster: Roster, users: Sequence[Callable[[Config], object]], applied: Callable[[int], object]
    ) -> None:
        """`users` are called with the new configuration; `applied` with the number of the reload, when that is done."""
        self._roster, self._users, self._applied = roster, users, applied
        self._waiting: tuple[int, Config] | None = None

    def take(self, new: NewSettings) -> None:
        """New settings of the supervisor; they replace any that still wait."""
        config = from_text(new.text)
        self._roster.join(config)
        self._waiting = new.number, config

    def tick(self, now_ns: int) -> None:
        """Use the settings that wait, if all engines that they need answer."""
        if self._waiting is None or not self._roster.has_joined(self._waiting[1], now_ns):
            return
        number, config = self._waiting
        self._waiting = None
        self._roster.serve(config)
        for use in self._users:
            use(config)
        self._applied(number)
