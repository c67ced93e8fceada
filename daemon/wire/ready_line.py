"""The line that `glowd` prints when clients may connect: `glowd ready key=value ...`, quoted as a shell would.

Rules: daemon/app.py prints the line, clients/launch.py reads it; no other part knows its form.
"""

import shlex
from dataclasses import dataclass
from typing import Self

__all__ = ["ReadyLine"]

PREFIX = "glowd ready "


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyLine:
    """Where a daemon listens, the voices it serves, its sound device ("none" without one), seconds it took to start.

    `web`: the address of its page, with the token; "" if none is served. `wyoming`: that of its Wyoming service, or "".
    """

    endpoint: str
    telemetry: str
    voices: tuple[str, ...]
    device: str
    seconds: float
    web: str = ""
    wyoming: str = ""

    def __str__(self) -> str:
        facts = {
            "endpoint": self.endpoint,
            "telemetry": self.telemetry,
            "voices": ",".join(self.voices),
            "device": self.device,
            "seconds": f"{self.seconds:.1f}",
        }
        optional = {"web": self.web, "wyoming": self.wyoming}
        facts |= {name: address for name, address in optional.items() if address}
        return PREFIX + " ".join(f"{key}={shlex.quote(value)}" for key, value in facts.items())

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """The facts of a line of output; None for every other line. Unknown keys are ignored."""
        if not line.startswith(PREFIX):
            return None
        try:
            facts = dict(word.split("=", 1) for word in shlex.split(line.removeprefix(PREFIX)))
            return cls(
                endpoint=facts["endpoint"],
                telemetry=facts["telemetry"],
                voices=tuple(facts["voices"].split(",")),
                device=facts["device"],
                seconds=float(facts["seconds"]),
                web=facts.get("web", ""),
                wyoming=facts.get("wyoming", ""),
            )
        except (ValueError, KeyError):
            return None
