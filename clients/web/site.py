"""What the web process needs to know, from its settings: where the daemon is, who may come in, and limits.

Rules: values only.
"""

from dataclasses import dataclass

__all__ = ["LOOPBACK", "Site"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names of this machine that no name server can give to another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One web process. `hosts`: the names under which browsers may reach it, lower case, besides those of LOOPBACK.

    `any_address`: it may also be reached under an address in numbers, which no name server can redirect.
    """

    endpoint: str
    telemetry: str
    token: str
    hosts: frozenset[str] = frozenset()
    any_address: bool = False
    max_pages: int = 16
    listener_s: float = 30.0
    cushion_ms: float = 80.0
    """What a page collects before it plays."""
    tts: str = ""
    """What speaks texts (clients/upstream/choose.py); empty: its default."""
