"""What a reload changes: the difference of two configurations, and what of it takes effect without a restart.

Rules: no process, no file, no clock. A setting that needs a restart keeps its value, and is named. A voice whose settings differ
gets new engines beside the old ones, which keep the streams that they have. Engines are told apart by the revision of their voice
(Config.revisions), which is never used again for a voice.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from glowd.daemon.config import Config
from glowd.daemon.config_voices import VoiceSettings, rendered

RELOADABLE: dict[str, tuple[str, ...] | None] = {
    "server": (
        "max_clients", "max_streams", "max_peer_clients", "max_peer_streams", "max_peer_listens", "max_peer_messages_s",
        "max_peer_requests_s", "max_peer_frames_s", "credit_ms", "max_utterance_s", "idle_timeout_s", "role_wait_s",
    ),
    "speaker": ("prefill_ms",),
    "files": None,
    "supervisor": None,
    "log": None,
}  # fmt: skip
"""By table: what takes effect in a daemon that runs; None: all of it. Not what sockets are open with, what a device plays with,
or what clients were promised. No setting of these is checked against one that is not: config.py."""
TABLES = tuple(table.name for table in fields(Config) if table.name not in ("voices", "revisions"))


@dataclass(frozen=True, slots=True)
class Plan:
    """What takes effect, and what does not. Settings are named as TABLE.KEY, voices by their names."""

    config: Config
    """The new configuration, in which what needs a restart has its old value."""
    settings: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing takes effect."""
        return not (self.settings or self.added or self.removed or self.changed)


def plan_reload(old: Config, new: Config) -> Plan:
    """The plan that leads from `old` to `new`."""
    kept = {name: _kept(reloadable(name, old), getattr(old, name), getattr(new, name)) for name in TABLES}
    added = tuple(name for name in new.voices if name not in old.voices)
    removed = tuple(name for name in old.voices if name not in new.voices)
    common = [name for name in new.voices if name in old.voices]
    changed = tuple(name for name in common if not _same(old.voices[name], new.voices[name]))
    config = replace(new, **kept, revisions=_revisions(old, (*added, *changed), removed))
    return Plan(
        config=config,
        settings=(*_differences(old, config), *_cluster_differences(old, config)),
        added=added,
        removed=removed,
        changed=changed,
        needs_restart=tuple(_differences(config, new)),
    )


def reloadable(table: str, old: Config) -> tuple[str, ...] | None:
    """What takes effect of a table in a daemon that runs with `old`; None: all of it."""
    keys = RELOADABLE.get(table, ())
    # Only where the gateway has the socket for it.
    dialled = ("dial_engines",) if table == "server" and old.server.has_engines_elsewhere else ()
    return None if keys is None else (*keys, *dialled)


def _kept(keys: tuple[str, ...] | None, old: Any, new: Any) -> Any:
    """The old table with the new values of what takes effect."""
    return new if keys is None else replace(old, **{key: getattr(new, key) for key in keys})


def _same(old: VoiceSettings, new: VoiceSettings) -> bool:
    """Whether an engine would render the same: which voice is the default is the gateway's business."""
    return type(old) is type(new) and rendered(old) == rendered(new)


def _cluster_differences(old: Config, new: Config) -> Iterator[str]:
    """What differs in how many engines Ray runs, and where, of voices that render as before."""
    for name, voice in new.voices.items():
        before, after = old.voices.get(name, voice).to_dict(), voice.to_dict()
        yield from (
            f"voices.{name}.{key}" for key in after if key.startswith("cluster_") and before.get(key) != after[key]
        )


def _revisions(old: Config, started: tuple[str, ...], removed: tuple[str, ...]) -> dict[str, int]:
    """The engines of a voice that was here before may still run, so the next ones are told apart from them."""
    known = dict(old.revisions)
    for voice in started:
        known[voice] = known[voice] + 1 if voice in known else int(voice in old.voices)
    return known | {voice: known.get(voice, 0) for voice in removed}


def _differences(old: Config, new: Config) -> Iterator[str]:
    """The settings outside of the voices that differ; and which voice is the default."""
    for table in TABLES:
        before, after = getattr(old, table), getattr(new, table)
        for key in (field.name for field in dataclasses.fields(before)):
            if getattr(before, key) != getattr(after, key):
                yield f"{table}.{key}"
    if old.default_voice != new.default_voice:
        yield "the default voice"
