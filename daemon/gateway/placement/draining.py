"""Whether the daemon takes new streams: its operator may drain it before it is stopped, so that its clients go to another one.

Rules: no socket, no clock. A client leaves between two utterances, so that nobody hears it: it is told that the daemon stops,
and a client that knows other gateways goes on there. Whoever has no stream, such as `glowctl status`, stays.
"""

import logging

from glowd.daemon.gateway.clients.connections import ClientConnection
from glowd.daemon.gateway.placement.registry import Stream, StreamRegistry
from glowd.daemon.wire import Code, WireError

PLACEMENTS = {"uncordon": "open", "cordon": "cordoned", "drain": "draining"}
"""What each action of wire.Engine makes of the daemon."""

log = logging.getLogger("glowd.gateway")


class Draining:
    """Owner: the gateway's only thread."""

    def __init__(self, streams: StreamRegistry) -> None:
        self._streams = streams
        self.placement = "open"
        """Whether the daemon takes new streams: open, cordoned or draining."""
        streams.between_utterances.append(self._between)

    def place(self, action: str) -> None:
        """An operator says whether the daemon takes new streams, and whether those that are open are to go."""
        self.placement = PLACEMENTS[action]
        log.info("the daemon is %s", self.placement)

    def require_open(self) -> None:
        """Raise WireError if the daemon takes no new streams."""
        if self.placement != "open":
            text = f"the daemon is {self.placement}, and takes no new streams; use another one, or: glowctl uncordon"
            raise WireError(Code.STOPPING, text)

    def look(self, client: ClientConnection) -> None:
        """Have a client leave, if it is to, and none of its streams speaks."""
        if self.placement != "draining" or client.lost:
            return
        streams = self._streams.owned_by(client)
        if not streams or any(stream.session.state.phase.has_begun for stream in streams):
            return
        client.dismiss(WireError(Code.STOPPING, "the daemon is draining"))

    def _between(self, stream: Stream) -> None:
        self.look(stream.owner)
