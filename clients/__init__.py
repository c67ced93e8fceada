"""The client library. It knows the wire protocol (glowd.daemon.wire) and nothing else of the daemon.

from glowd.clients import Client

with Client() as glow, glow.open(sinks=["device"]) as stream:
    for mel in my_tts("Hello"):  # each [frames, bins], natural log
        stream.send(mel)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glowd.clients.aio import AsyncClient as AsyncClient
    from glowd.clients.client import Client as Client
    from glowd.clients.errors import GlowdError as GlowdError
    from glowd.daemon.wire.codec import to_s16 as to_s16

_MODULES = {
    "Client": "glowd.clients.client", "AsyncClient": "glowd.clients.aio", "GlowdError": "glowd.clients.errors",
    "to_s16": "glowd.daemon.wire.codec",
}  # fmt: skip
__all__ = ["AsyncClient", "Client", "GlowdError", "to_s16"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'glowd.clients' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(_MODULES[name]), name)
