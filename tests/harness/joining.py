"""Engines of "other machines": processes that join a daemon by TCP, with a key, as they would from elsewhere."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import zmq

from glowd.clients import Client
from glowd.clients.launch import GLOWD
from tests.harness.daemon import ROOT, Daemon, running_daemon
from tests.harness.waiting import WAIT_S, until

ENGINE = ("--set", "log.level=info")


def free_port() -> int:
    """A port of TCP that nobody uses now."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as bound:
        return bound.bind_to_random_port("tcp://127.0.0.1")


def glowctl(daemon: Daemon, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run glowctl with a daemon."""
    command = [sys.executable, "-m", "glowd.clients.cli.glowctl", "--endpoint", daemon.endpoint, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)


def new_key(daemon: Daemon, name: str, *roles: str) -> str:
    """The address of a new key."""
    done = glowctl(daemon, "key", "new", name, *(word for role in roles for word in ("--role", role)))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class EngineProcess:
    """`glowd engine`, and what it has printed."""

    process: "subprocess.Popen[str]"
    output: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, address: str, name: str, *arguments: str, voice: str = "glow") -> Self:
        """Start one."""
        command = [*GLOWD, "engine", "--voice", voice, "--name", name, *ENGINE, *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env={**os.environ, "GLOWD_JOIN": address},
        )  # fmt: skip
        started = cls(process)
        threading.Thread(target=started._read, daemon=True).start()
        return started

    def _read(self) -> None:
        assert self.process.stdout, "it is a pipe"
        with self.process.stdout as lines:
            self.output.extend(lines)

    def kill(self) -> None:
        """kill -9"""
        self.process.kill()
        self.process.wait(WAIT_S)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Within the block it does not run (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@dataclass
class Site:
    """A daemon that engines join, the address for them, and those that were started."""

    daemon: Daemon
    address: str
    recordings: Path
    engines: dict[str, EngineProcess] = field(default_factory=dict)

    def start(self, name: str, *arguments: str) -> EngineProcess:
        """Start an engine of the voice glow."""
        self.engines[name] = EngineProcess.start(self.address, name, *arguments)
        return self.engines[name]

    def wait(self, *names: str) -> None:
        """Wait until exactly these engines serve."""
        wanted = {f"glow/{name}" for name in names}
        with self.daemon.client("waits") as glow:
            until(lambda: self._ready(glow) == wanted, f"engines {wanted}", 3 * WAIT_S, every_s=0.05)

    def _ready(self, glow: Client) -> set[str]:
        return {name for name, engine in engines(glow).items() if engine["ready"]}

    def end(self) -> None:
        """Kill the engines."""
        for engine in self.engines.values():
            engine.kill()


def engines(glow: Client) -> dict[str, Any]:
    """The engines of the voice glow, by name, as status lists them."""
    found: dict[str, Any] = glow.status().info["voices"]["glow"]["engines"]
    return found


@contextlib.contextmanager
def running_site(folder: Path, *settings: str, devices: Sequence[str] = ()) -> Iterator[Site]:
    """A daemon whose voice glow has engines on these devices, and those that join."""
    voices = f"voices={{glow={{engine='waveglow',devices={list(devices)},max_streams=8}}}}"
    endpoint = f"server.engines=tcp://127.0.0.1:{free_port()}"
    own = (endpoint, voices, f"server.keys={folder}/keys", f"files.directory={folder}/recordings")
    with running_daemon("speaker.enabled=false", *own, *settings) as daemon:
        site = Site(daemon, new_key(daemon, "pool", "engine"), folder / "recordings")
        try:
            yield site
        finally:
            site.end()
