"""The daemon's settings: each declared once, with its default, help and range (flow/options.py).

Rules: each dataclass is one table of config.toml; a part of the daemon gets the table it needs, never the whole. The tables of
voices are in config_voices.py. A value that is not allowed raises OptionError. config.toml documents every setting; a test
compares it with the declarations. config_reader.py reads it. Hyper-parameters of a network are not settings: they are in its
checkpoint.
"""

import os
import re
from dataclasses import dataclass, field

from glowd.daemon.config_voices import VoiceSettings
from glowd.daemon.wire.ip_version import host_of, is_wildcard
from glowd.flow.options import Options, option

LOG_LEVELS = ("debug", "info", "warning", "error")
LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
HOST = re.compile(r"\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]|[A-Za-z0-9._-]+")
MAX_SOCKET_PATH_BYTES = 107  # sockaddr_un
RESTART_S = 5.0
"""What it takes at least until a process that hung works again: the pause before its restart, and the start."""
PING_EVERY_S = 5.0
"""How often a client that has nothing else to send sends a ping (clients/connection.py)."""
FRAME_BYTES = 80 * 4
"""Bytes of a mel frame of 80 bands in float32."""


class ConfigError(ValueError):
    """A setting that cannot be used. The text names the key, the value and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings(Options):
    """[server]: the gateway's sockets and limits."""

    endpoint: str = option(
        "", "where clients connect: ipc://PATH; or tcp://HOST:PORT, besides glowd.ipc in run_dir; empty: that alone"
    )
    telemetry: str = option(
        "",
        "where `glowctl top` connects: ipc://PATH; or tcp://HOST:PORT, besides top.ipc in run_dir; empty: that alone",
    )
    run_dir: str = option(
        "", "private directory of the sockets; empty: $GLOWD_RUN_DIR, else $XDG_RUNTIME_DIR/glowd, else /tmp/glowd-UID"
    )
    engines: str = option(
        "", "where engines on other machines join: tcp://HOST:PORT, always encrypted and by keys; empty: nowhere"
    )
    dial_engines: tuple[str, ...] = option(
        (),
        "engines on other machines that listen and are dialled: tcp://HOST:PORT for each",
        max=256,
    )
    keys: str = option(
        "", "private directory of the keys for tcp:// addresses; empty: $GLOWD_KEYS, else ~/.config/glowd/keys"
    )
    plain_tcp: bool = option(False, "serve tcp:// addresses without encryption and keys, to whoever reaches them")
    allow_remote: bool = option(False, "with plain_tcp: allow addresses that other machines can reach")
    max_clients: int = option(64, "clients at once; the next one is refused", min=1, max=4096)
    max_streams: int = option(
        16, "streams at once, over all clients and voices; the next one is refused", min=1, max=1024
    )
    max_peer_clients: int = option(
        0,
        "clients of one peer: a local process, a key, or without keys a machine; 0: three quarters of max_clients",
        min=0,
        max=4096,
    )
    max_peer_streams: int = option(0, "streams of one peer; 0: three quarters of max_streams", min=0, max=1024)
    max_peer_listens: int = option(
        256, "streams that the clients of one peer listen to; all streams count as max_streams", min=1, max=1_000_000
    )
    max_peer_messages_s: int = option(
        5000, "messages a second of one peer, over 10 s; who goes on is disconnected", min=10, max=1_000_000
    )
    max_peer_requests_s: int = option(
        100, "requests a second of one peer, over 10 s: hello, open, listen, unlisten, status", min=1, max=1_000_000
    )
    max_peer_frames_s: int = option(
        0, "mel frames a second of one peer, whose credit is held back above that; 0: any number", min=0, max=1_000_000
    )
    max_message_bytes: int = option(
        1 << 20, "bytes of one message part; a longer one closes the connection", min=1 << 14, max=1 << 26
    )
    max_chunk_frames: int = option(512, "mel frames in one message", min=1, max=4096)
    credit_ms: int = option(2000, "ms of audio that a client may send ahead of what was delivered", min=100, max=60_000)
    max_utterance_s: int = option(300, "s of audio in one utterance", min=1, max=3600)
    idle_timeout_s: float = option(
        60.0, "s without any message from a client until its streams are closed; at least 10", min=0.1, max=86_400
    )
    role_wait_s: float = option(
        30.0, "s that streams wait for a lost engine or device to return, or longer if the engine needs longer to start; "
        "at least supervisor.watchdog_s + 5", min=0.1, max=3600,
    )  # fmt: skip

    def check(self) -> None:
        """Raises OptionError where settings contradict one another."""
        for key in ("endpoint", "telemetry"):
            self._check_address(key, getattr(self, key))
        self.require(
            "engines",
            not self.engines or is_tcp(self.engines),
            "tcp://HOST:PORT with a port up to 65535, or empty: no engine of another machine may join",
        )
        is_known = all(_can_be_dialled(address) for address in self.dial_engines)
        allowed = "a list whose entries are each tcp://HOST:PORT, of a machine and with a port up to 65535"
        self.require("dial_engines", is_known, allowed)
        if self.endpoint:
            self.require("telemetry", self.telemetry != self.endpoint, "another address than endpoint")
        self.require(
            "idle_timeout_s",
            self.idle_timeout_s >= 2 * PING_EVERY_S,
            f"at least {2 * PING_EVERY_S:g}, because a client that is idle sends a ping every {PING_EVERY_S:g} s",
        )
        most = self.max_message_bytes // FRAME_BYTES
        allowed = (
            f"at most {most}, because max_message_bytes = {self.max_message_bytes} and a frame takes {FRAME_BYTES}"
        )
        self.require("max_chunk_frames", self.max_chunk_frames <= most, allowed)

    @property
    def has_engines_elsewhere(self) -> bool:
        """Whether there may be engines on other machines: they join, or are dialled."""
        return bool(self.engines or self.dial_engines)

    def _check_address(self, key: str, address: str) -> None:
        """Refuse an address that ZeroMQ or we would not listen at; "" means the default."""
        path, host = address.removeprefix("ipc://") if address.startswith("ipc://") else "", host_of(address)
        self.require(
            key,
            bool(path or host or not address),
            "ipc://PATH, tcp://HOST:PORT with a port up to 65535 and IPv6 in brackets, or empty: the default",
        )
        path_bytes = len(os.fsencode(path))
        self.require(key, path_bytes <= MAX_SOCKET_PATH_BYTES, f"a path of at most {MAX_SOCKET_PATH_BYTES} bytes")
        is_local = not host or host in LOOPBACK or f"[{host}]" in LOOPBACK
        self.require(
            key,
            is_local or self.allow_remote or not self.plain_tcp,
            "an address of this machine, such as 127.0.0.1, because with plain_tcp nothing on the wire is encrypted or "
            "authenticated; leave plain_tcp out and give each client a key (glowctl key new), or, in a network that you "
            "trust, set server.allow_remote = true",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerSettings(Options):
    """[speaker]: the sound device."""

    enabled: bool = option(True, "false: no sound device is opened, and streams that ask for it are refused")
    device: str = option("", "name, part of a name or number of the output device; empty: the system's default")
    rate_hz: int = option(
        0,
        "Hz at which the device is opened; 0: the rate of the voices if the device can, else its own",
        min=0,
        max=192_000,
    )
    latency_ms: float = option(60.0, "ms of audio between the mixer and the loudspeaker", min=1, max=2000)
    block_ms: float = option(10.0, "ms of audio mixed at a time", min=1, max=200)
    prefill_ms: float = option(
        100.0, "ms of audio collected before a stream starts to play, unless the client sets its own", min=0, max=5000
    )

    def check(self) -> None:
        """Raises OptionError where settings contradict one another."""
        self.require("block_ms", self.block_ms <= self.latency_ms, f"at most latency_ms = {self.latency_ms}")
        self.require("rate_hz", not 0 < self.rate_hz < 8000, "0 (the device's own) or from 8000 to 192000")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings(Options):
    """[web]: the browser page and HTTP."""

    enabled: bool = option(False, "serve the browser page and HTTP; needs the packages of the extra web")
    host: str = option("127.0.0.1", "address to listen at; one that other machines can reach needs allow_remote")
    port: int = option(7767, "port to listen at; 0: any free one", min=0, max=65535)
    allow_remote: bool = option(False, "allow an address that other machines can reach; HTTP is not encrypted")
    hosts: tuple[str, ...] = option((), "names by which browsers reach it, besides localhost and its address", max=64)
    max_pages: int = option(16, "open pages at once; the next one is refused", min=1, max=256)
    listener_s: float = option(
        30.0, "s of audio kept for a page that listens and is behind; the oldest is dropped", min=1, max=600
    )
    cushion_ms: float = option(
        80.0, "ms of audio that a page collects before it plays; more where its machine or the way to it is uneven",
        min=0, max=1000,
    )  # fmt: skip
    tts: str = option("", "what speaks texts: espeak-ng, hibari, matcha:FILE ...; empty: hibari, or else espeak-ng")

    def check(self) -> None:
        """Raises OptionError where settings contradict one another."""
        allowed = (
            "127.0.0.1, [::1] or localhost, because HTTP is not encrypted; in a network that you trust, or behind a proxy "
            "with TLS, set web.allow_remote = true"
        )
        self.require("host", self.host in LOOPBACK or self.allow_remote, allowed)
        self.require("host", HOST.fullmatch(self.host) is not None, "NAME, IP or [IPv6]")


@dataclass(frozen=True, slots=True, kw_only=True)
class WyomingSettings(Options):
    """[wyoming]: the voice service for Home Assistant."""

    enabled: bool = option(False, "serve texts to Home Assistant by Wyoming; needs the packages of the extra wyoming")
    host: str = option("127.0.0.1", "address to listen at; one that other machines can reach needs allow_remote")
    port: int = option(10200, "port to listen at; 0: any free one", min=0, max=65535)
    allow_remote: bool = option(False, "allow an address that other machines can reach; whoever reaches it can speak")
    tts: str = option("", "what makes mels of texts, as glowctl say --tts; empty: hibari if installed, else espeak-ng")
    tts_voice: str = option("", "a voice of that; empty: its own default")
    languages: tuple[str, ...] = option(("en",), "languages that Home Assistant offers the voice for", min=1, max=64)

    def check(self) -> None:
        """Raises OptionError where settings contradict one another."""
        allowed = (
            "127.0.0.1, [::1] or localhost, because Wyoming knows no password; in a network that you trust, "
            "set wyoming.allow_remote = true"
        )
        self.require("host", self.host in LOOPBACK or self.allow_remote, allowed)
        self.require("host", HOST.fullmatch(self.host) is not None, "NAME, IP or [IPv6]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings(Options):
    """[cluster]: engines that Ray runs on other machines."""

    ray: str = option(
        "", '"auto": the Ray cluster that this machine is a node of, or HOST:PORT of its head; empty: without Ray'
    )
    namespace: str = option("glowd", "what the engines of this daemon are found under; another for each daemon")
    target: float = option(
        0.7, "share of the engines' streams that is open: above it more are started, below it fewer are kept",
        above=0, max=1,
    )  # fmt: skip
    hold_s: float = option(300.0, "s for which fewer engines must be enough before one is drained", min=0, max=86_400)

    def check(self) -> None:
        """Raises OptionError for what is no address of Ray, and no namespace."""
        self.require("ray", re.fullmatch(r"|auto|.+:\d{1,5}", self.ray) is not None, '"auto", HOST:PORT, or empty')
        self.require("namespace", re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.namespace) is not None, "a name")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings(Options):
    """[files]: the file sink."""

    directory: str = option("recordings", "where the file sink writes its WAV files")
    max_peer_files: int = option(
        10_000, "recordings of one peer since the start; the next one is refused", min=1, max=1_000_000
    )
    max_peer_mb: int = option(10_000, "MB of recordings of one peer since the start", min=1, max=1_000_000)
    file_mode: str = option("600", "permissions of these files, three octal digits; 600: nobody else may read them")
    folder_mode: str = option("700", "permissions of their directory if it is made, three octal digits")

    def check(self) -> None:
        """Raises OptionError for what is no mode, or one with which glowd could not write."""
        self.require("file_mode", _is_mode(self.file_mode, 0o600), "three octal digits, the first 6 or 7")
        self.require("folder_mode", _is_mode(self.folder_mode, 0o700), "three octal digits, the first 7")


def is_tcp(address: str) -> bool:
    """Whether it is tcp://HOST:PORT."""
    return bool(host_of(address))


def _can_be_dialled(address: str) -> bool:
    """Whether it is tcp://HOST:PORT of a machine: no wildcard."""
    host = host_of(address)
    is_machine = HOST.fullmatch(f"[{host}]" if ":" in host else host) is not None
    return is_machine and not is_wildcard(host)


def _is_mode(text: str, least: int) -> bool:
    return re.fullmatch("[0-7]{3}", text) is not None and int(text, 8) & least == least


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings(Options):
    """[supervisor]: starting, watching and stopping the roles."""

    ready_timeout_s: float = option(
        120.0, "s within which each role must be ready; an engine warms up first", min=0.1, max=3600
    )
    watchdog_s: float = option(
        10.0, "s of silence after which a role is killed and restarted; a sound device that hangs, too", min=2, max=3600
    )
    grace_s: float = option(5.0, "s that a role has to stop before it is killed", min=0.1, max=600)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings(Options):
    """[log]: what goes to standard error."""

    level: str = option(
        "info", "least severe level that is logged to standard error: debug, info, warning or error", choices=LOG_LEVELS
    )


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine process: its name, the voice it serves, and the device it serves it on: auto, cpu or cuda:N."""

    name: str
    voice: str
    device: str

    @property
    def cuda(self) -> int | None:
        """The number of a CUDA device that is named; None for others."""
        return int(self.device.removeprefix("cuda:")) if self.device.startswith("cuda:") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole of config.toml. Only a process's edge holds it; parts are handed their own table."""

    server: ServerSettings
    voices: dict[str, VoiceSettings]
    speaker: SpeakerSettings
    web: WebSettings
    wyoming: WyomingSettings
    cluster: ClusterSettings
    files: FileSettings
    supervisor: SupervisorSettings
    log: LogSettings
    revisions: dict[str, int] = field(default_factory=dict)
    """No table: how often each voice was given new engines by a reload. Those before may still have streams."""

    def check(self) -> None:
        """Raises ConfigError where settings of different tables contradict one another."""
        if self.cluster.ray and not self.server.engines:
            raise ConfigError(
                f"cluster.ray is {self.cluster.ray!r}, so engines are to join from other machines, and none may: set "
                'server.engines = "tcp://HOST:PORT"'
            )
        for name, voice in self.voices.items():
            if not voice.devices and not self.server.has_engines_elsewhere:
                raise ConfigError(
                    f"voices.{name}.devices is empty, so its engines are to join from other machines, and none may: set "
                    'server.engines = "tcp://HOST:PORT" or server.dial_engines, or give the voice a device'
                )
        least, wait_s = self.supervisor.watchdog_s + RESTART_S, self.server.role_wait_s
        if wait_s < least:
            raise ConfigError(
                f"server.role_wait_s must be at least supervisor.watchdog_s + {RESTART_S:g} = {least:g}; got {wait_s:g}. A "
                "process that hangs is noticed after watchdog_s and then has to start: its streams would be given up before "
                "it is back. Raise role_wait_s or lower watchdog_s"
            )

    @property
    def default_voice(self) -> str:
        """The voice of a stream that names none."""
        return next((name for name, voice in self.voices.items() if voice.default), next(iter(self.voices)))

    @property
    def engines(self) -> dict[str, EngineSpec]:
        """The engine processes by name: that of the voice, or, where it has several, VOICE/0, VOICE/1, ...

        Those that a reload has started have @ and the revision of the voice behind that.
        """
        specs = [
            EngineSpec(
                name=(voice if len(settings.devices) == 1 else f"{voice}/{number}") + self._revision(voice),
                voice=voice,
                device="cuda:0" if device == "cuda" else device,
            )
            for voice, settings in self.voices.items()
            for number, device in enumerate(settings.devices)
        ]
        return {spec.name: spec for spec in specs}

    def _revision(self, voice: str) -> str:
        return f"@{self.revisions[voice]}" if self.revisions.get(voice) else ""
