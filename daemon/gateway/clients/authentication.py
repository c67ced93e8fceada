"""Who is let in from other machines: the keys of their handshakes are looked up (ZAP, RFC 27).

Rules: the gateway's thread; nothing blocks. pyzmq's Authenticator speaks the protocol, `KeyFiles` knows the keys. A mistake here
costs the handshake that it happened in, and no later one: its peer is disconnected, and tries again.
"""

import contextlib
import logging

import zmq
import zmq.auth
from zmq.utils import z85

from glowd.daemon.runtime.keys import CannotReadNow, ClientKey, KeyFiles
from glowd.daemon.runtime.sockets import user_id
from glowd.daemon.runtime.told import Told

TELEMETRY_DOMAIN, CLIENT_DOMAIN, ENGINE_DOMAIN = "telemetry", "clients", "engines"

PLACES = {
    CLIENT_DOMAIN: "server.endpoint",
    TELEMETRY_DOMAIN: "server.telemetry",
    ENGINE_DOMAIN: "server.engines or dial_engines",
}

LOOK_NS = 1_000_000_000
TRY_AGAIN = b"300"

log = logging.getLogger("glowd.gateway")


class Authentication(zmq.auth.Authenticator):
    """Answers ZeroMQ's questions at `zap_socket`, whenever that has something to read."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", keys: KeyFiles) -> None:
        super().__init__(context, log=logging.getLogger("glowd.gateway.zap"))
        self.keys, self._refused = keys, Told()
        self._looked_ns = 0
        self._let_in: ClientKey | None = None
        """The key that `callback` has let in last."""
        self.start()
        for domain in (CLIENT_DOMAIN, TELEMETRY_DOMAIN, ENGINE_DOMAIN):
            self.configure_curve_callback(domain, self)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the owner of this public key, in Z85, may connect to the sockets of a domain."""
        found = self.keys.find(z85.decode(key))
        reason = self._refusal(domain, found)
        if self._refused.is_new((domain, key), reason) and reason:
            log.warning("%s", reason)
        self._let_in = None if reason else found
        return not reason

    def _refusal(self, domain: str, found: ClientKey | None) -> str:
        """Why a key may not connect; "" if it may."""
        if found is None:
            place = PLACES.get(domain, domain)
            return (
                f"a peer of {place} with an unknown or revoked key is turned away, however often it comes; if it is one of "
                "yours, give it a new address (glowctl key new)"
            )
        if domain == TELEMETRY_DOMAIN and not found.rights.watches:
            return f"the key {found.name} may not read the telemetry: it has not the role metrics"
        if domain == ENGINE_DOMAIN and not found.rights.engine:
            return f"the key {found.name} may not join as an engine: it has not the role engine"
        return ""

    def curve_user_id(self, client_public_key: bytes) -> str:
        """What messages of this client are marked with: its public key (32 bytes), and the name of that for people.

        The files of keys are not asked again: they may have changed, and a peer without a key is taken for one of this machine.
        """
        assert self._let_in and self._let_in.public == client_public_key, "`callback` has let it in"
        return user_id(client_public_key, self._let_in.name)

    def tick(self, now_ns: int) -> None:
        """Look for files of keys that were changed in their place; others are noticed whenever somebody asks."""
        if now_ns - self._looked_ns >= LOOK_NS:
            self._looked_ns = now_ns
            self.keys.look()

    def answer(self) -> None:
        """Answer one question."""
        assert self.zap_socket is not None, "it was started"
        try:
            question = self.zap_socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        try:
            # It is written for asyncio, and waits for nothing, because `callback` does not.
            self.handle_zap_message(question).send(None)
        except StopIteration:
            self._refused.is_new("reading", "")
        except CannotReadNow as error:
            if self._refused.is_new("reading", str(error)):
                log.warning("peers that come must try again: %s", error)
            self._put_off(question)
        except Exception:  # the edge to a library, and to what strangers send
            log.exception("a handshake could not be answered")
            self._put_off(question)

    def _put_off(self, question: list[bytes]) -> None:
        """Have the peer try again: ZeroMQ asks no further question before it has an answer to each."""
        with contextlib.suppress(zmq.ZMQError):  # it has one
            self._send_zap_reply(question[1], TRY_AGAIN, b"the keys cannot be read at the moment")
