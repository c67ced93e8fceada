"""The wire protocol, as clients and the gateway share it: `from glowd.daemon import wire`, then `wire.Mel`, `wire.encode`.

Rules of this package: no I/O and no session state; numpy and msgpack only, and nothing of the rest of the daemon.
messages.py declares the messages, fields.py how a message is declared, codec.py turns them into bytes and back;
endpoints.py says where the daemon is.
"""

from glowd.daemon.wire.endpoints import *  # noqa: F403 (each lists what is meant)
from glowd.daemon.wire.messages import *  # noqa: F403
