"""Holds every peer to its quotas of messages, requests, clients and listens; those of streams are in placement/admission.py.

Rules: no socket; the time is passed in. Who is over a quota is told which, its value, and what to do.
"""

from collections.abc import Callable, Mapping

from glowd.daemon import wire
from glowd.daemon.config import Config
from glowd.daemon.gateway.clients.connections import ClientConnection, TrySend
from glowd.daemon.gateway.clients.peers import Peer, peer_of
from glowd.daemon.gateway.clients.rates import Rates, Verdict
from glowd.daemon.gateway.clients.visitors import Visitors
from glowd.daemon.runtime.quotas import Quotas
from glowd.daemon.runtime.sockets import Sender
from glowd.daemon.wire import Code, WarningCode, WireError
from glowd.daemon.wire.fields import Message

MESSAGES, REQUESTS = "messages_s", "requests_s"
WHAT = {MESSAGES: "messages", REQUESTS: "requests (hello, open, listen, unlisten, status)"}
COSTLY = (wire.Hello, wire.Open, wire.Listen, wire.Unlisten, wire.Status)
WARNS_SINCE = 2


class QuotaKeeper:
    """Owner: the gateway's only thread. `quotas`: by the settings, of peers without a key that says more."""

    def __init__(
        self, config: Config, clients: Mapping[bytes, ClientConnection], visitors: Visitors, try_send: TrySend
    ) -> None:
        self._clients, self._visitors, self._try_send, self._rates = clients, visitors, try_send, Rates()
        self.use(config)

    def use(self, config: Config) -> None:
        """Use other settings."""
        self.quotas = Quotas.of(config.server, config.files)
        self._max_streams = config.server.max_streams

    def tick(self, now_ns: int) -> None:
        """Forget peers that are silent."""
        self._rates.tick(now_ns)

    # ------------------------------------------------------------------- rates

    def may_send(
        self, kind: str, identity: bytes, client: ClientConnection | None, sender: Callable[[], Sender], now_ns: int
    ) -> bool:
        """Count a message, or a request; whether it is handled, because its sender was not ended for it."""
        peer, descriptor = (client.peer, client.descriptor) if client else _stranger(sender(), identity)
        quotas = client.quotas if client and client.quotas else self.quotas
        allowed: int = getattr(quotas, kind)
        verdict = self._rates.count(peer.key, kind, allowed, (identity, descriptor), now_ns)
        if verdict is Verdict.FINE:
            return True
        text = f"{peer.name} sends more than {allowed} {WHAT[kind]} a second, the most for one peer ({quotas.source(kind)})"
        if verdict is Verdict.TELL:
            self._tell(identity, client, f"{text}; if it goes on, it is disconnected. Send less often, or raise it")
            return True
        worst = self._rates.worst(peer.key, kind, (identity, descriptor))
        self._end(*worst, f"{text}, and went on after it was told")
        return worst != (identity, descriptor)

    def _tell(self, identity: bytes, client: ClientConnection | None, text: str) -> None:
        code, error = WarningCode.QUOTA_REACHED, wire.error_for(WireError(Code.OVER_QUOTA, text))
        if client is None:
            self._try_send(identity, wire.encode(error))
        elif client.version < WARNS_SINCE:
            client.send(error)
        else:
            client.send(wire.Warning(int(code), code.name, text))

    def _end(self, identity: bytes, descriptor: int, text: str) -> None:
        fault = WireError(Code.OVER_QUOTA, text)
        if client := self._clients.get(identity):
            client.dismiss(fault)
        else:
            self._try_send(identity, wire.encode(wire.error_for(fault, fatal=True)))
            self._visitors.dismiss(descriptor, text)

    # ------------------------------------------------------------------ places

    def require_place(self, client: ClientConnection) -> None:
        """Raises WireError if the peer of a new client has as many as one may have."""
        quotas = client.quotas or self.quotas
        if sum(other.peer.key == client.peer.key for other in self._clients.values()) >= quotas.clients:
            text = (
                f"{client.peer.name} has {quotas.clients} clients connected, the most for one peer "
                f"({quotas.source('clients')})"
            )
            raise WireError(Code.TOO_MANY_CLIENTS, f"{text}; close one, or use one client for several streams")

    def require_listen(self, client: ClientConnection, stream: str) -> None:
        """Raises WireError if the peer of a client listens to as much as one may."""
        if stream in client.listening:
            return
        quotas = client.quotas or self.quotas
        others = (other.listening for other in self._clients.values() if other.peer.key == client.peer.key)
        taken = sum(self._worth(name) for listening in others for name in listening)
        if taken + self._worth(stream) > quotas.listens:
            text = f"{client.peer.name} listens to {taken} of {quotas.listens} streams, the most for one peer"
            worth = f" ({quotas.source('listens')}; all streams count as {self._max_streams})"
            raise WireError(Code.OVER_QUOTA, f"{text}{worth}; send unlisten for one", "" if stream == "*" else stream)

    def _worth(self, stream: str) -> int:
        return self._max_streams if stream == "*" else 1


def is_costly(message: Message) -> bool:
    """Whether a message is a request: it costs the daemon more than others."""
    return isinstance(message, COSTLY)


def _stranger(sender: Sender, identity: bytes) -> tuple[Peer, int]:
    return peer_of(sender, identity), sender.descriptor
