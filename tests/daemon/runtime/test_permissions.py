"""The rule table: every message of a client, for every role, own streams and others'. What is not allowed is refused."""

from typing import Any

import numpy as np
import pytest

from glowd.daemon import wire
from glowd.daemon.runtime.permissions import EVERYTHING, Rights, RoleError
from glowd.daemon.wire.messages import CLIENT_MESSAGES

ROLES: dict[str, Rights] = {
    role: Rights.of([role])
    for role in ("push", "listen news-*", "listen *", "control news-*", "metrics", "engine", "admin")
}
MEL = np.zeros((1, 80), np.float32)
MESSAGES: dict[str, tuple[wire.Message, bool]] = {
    "hello": (wire.Hello("c", 1, 2), False), "ping": (wire.Ping(1), False), "bye": (wire.Bye(), False),
    "open": (wire.Open("news-1"), False), "mel": (wire.Mel("news-1", 0, 0, 0, 1, payload=MEL), True),
    "end": (wire.End("news-1", 0, 0), True), "own flush": (wire.Flush("news-1", 0), True),
    "flush of news-2": (wire.Flush("news-2", 0), False), "flush of other": (wire.Flush("other", 0), False),
    "pause": (wire.Pause("news-1"), True), "resume": (wire.Resume("news-1"), True), "gain": (wire.Gain("news-1", 0.0), True),
    "pause of news-2": (wire.Pause("news-2"), False), "resume of news-2": (wire.Resume("news-2"), False),
    "gain of news-2": (wire.Gain("news-2", 0.0), False), "pause of other": (wire.Pause("other"), False),
    "resume of other": (wire.Resume("other"), False), "gain of other": (wire.Gain("other", 0.0), False),
    "close": (wire.Close("news-1"), True), "listen to news-2": (wire.Listen("news-2"), False),
    "listen to other": (wire.Listen("other"), False), "listen to all": (wire.Listen("*"), False),
    "unlisten": (wire.Unlisten("*"), False), "status": (wire.Status(), False),
    "engine": (wire.Engine("glow/0", "drain"), False),
}  # fmt: skip
FREE = {"hello", "ping", "bye", "unlisten"}
ALLOWED: dict[str, set[str]] = {
    "push": {"open", "mel", "end", "own flush", "pause", "resume", "gain", "close"},
    "listen news-*": {"listen to news-2"},
    "listen *": {"listen to news-2", "listen to other", "listen to all"},
    "control news-*": {"flush of news-2", "pause of news-2", "resume of news-2", "gain of news-2"},
    "metrics": {"status"},
    "engine": set(),
    "admin": set(MESSAGES),
}


@pytest.mark.parametrize("role", ROLES)
def test_role_allows_its_messages_and_no_other(role: str) -> None:
    allowed = {name for name, (message, own) in MESSAGES.items() if not ROLES[role].lacks(message, own)}
    assert allowed == ALLOWED[role] | FREE


def test_matrix_has_every_message_of_a_client() -> None:
    assert {type(message) for message, _ in MESSAGES.values()} == set(CLIENT_MESSAGES)


def test_refusal_names_the_role_that_is_missing() -> None:
    rights = Rights.of(["push", "listen a"])
    assert rights.lacks(wire.Listen("b"), False) == "listen b"
    assert rights.lacks(wire.Flush("b", 0), False) == "control b"
    assert rights.lacks(wire.Status(), False) == "metrics"
    assert not EVERYTHING.lacks(wire.Status(), False)


@pytest.mark.parametrize(
    "roles", [[], ["root"], ["listen"], ["listen a b"], ["push", "control ../x"], ["admin "], [None]]
)
def test_role_that_does_not_exist_is_refused(roles: list[Any]) -> None:
    with pytest.raises(RoleError, match="push, listen GLOB, control GLOB, metrics, engine, admin"):
        Rights.of(roles)


def test_key_of_an_engine_has_no_other_role() -> None:
    with pytest.raises(RoleError, match="the role engine has no other"):
        Rights.of(["engine", "push"])
