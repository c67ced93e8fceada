"""The wire protocol between clients and the gateway: `from glowd.daemon import wire`, then `wire.Mel`, `wire.encode`.

Rules of this package: no I/O and no session state; numpy and msgpack only, and no other package of the daemon.
messages.py declares the messages, telemetry.py the records in them; fields.py and records.py are how both are declared;
codec.py turns messages into bytes and back; endpoints.py has the default addresses, ready_line.py what `glowd` prints when
clients may connect, liveness.py the clock by which both sides judge that the other is gone. ip_version.py alone asks the system
for something: the addresses of a name.
"""

from glowd.daemon.wire.endpoints import *  # noqa: F403 (each lists what it exports)
from glowd.daemon.wire.messages import *  # noqa: F403
from glowd.daemon.wire.ready_line import *  # noqa: F403
from glowd.daemon.wire.telemetry import *  # noqa: F403
