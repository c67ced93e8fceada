"""Settings are reloaded while a stream plays: nothing of it is lost or altered, and a wrong file changes nothing."""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glowd.clients import Client, errors, launch
from glowd.clients.admin import reload_settings
from glowd.clients.cli import glowctl
from glowd.daemon import wire
from glowd.daemon.wire.admin import Reloaded
from glowd.flow.mel import Floats
from tests.harness.daemon import PATIENT, ROOT, Daemon
from tests.harness.mels import speech
from tests.harness.notify import NotifySocket
from tests.harness.speaking import AudioReader, send_all, speak
from tests.harness.waiting import WAIT_S, until

MEL = speech()[:300]
BEFORE = "a = {engine='rtisi-la',max_streams=8}\nc = {engine='rtisi-la',max_streams=8}"
AFTER = "a = {engine='rtisi-la',max_streams=8,iterations=4}\nb = {engine='rtisi-la',max_streams=8}"


def write(path: Path, voices: str, more: str = "") -> None:
    path.write_text(f"[voices]\n{voices}\n{more}\n")


class Reloadable(Daemon):
    """A daemon with a file of settings."""

    file: Path

    def edit(self, voices: str = BEFORE, more: str = "") -> None:
        write(self.file, voices, more)

    def reload(self) -> Reloaded:
        return reload_settings(self.run_dir)


@contextlib.contextmanager
def running(directory: Path, env: dict[str, str] | None = None) -> Iterator[Reloadable]:
    file = directory / "glowd.toml"
    write(file, BEFORE)
    settings = ("speaker.enabled=false", *PATIENT)
    arguments = ["--config", str(file), *(word for setting in settings for word in ("--set", setting))]
    with launch.launch(*arguments, env=env, cwd=ROOT, ready_s=5 * WAIT_S, stop_s=2 * WAIT_S) as launched:
        daemon = Reloadable(launched)
        object.__setattr__(daemon, "file", file)
        yield daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Reloadable]:
    with running(tmp_path) as found:
        yield found


def engine_of(client: Client, stream: str) -> str:
    return wire.Snapshot.from_map(client.status().info).streams[stream].engine


def test_stream_plays_through_a_reload_unaltered(daemon: Reloadable) -> None:
    with daemon.client() as client:
        expected, _ = speak(client, MEL, [4], voice="a", seed=3)
        removed, _ = speak(client, MEL, [4], voice="c", seed=3)
        heard: dict[str, Floats] = {}
        begun = [threading.Event(), threading.Event()]

        def talk(voice: str, begins: threading.Event) -> None:
            with daemon.client() as own, own.open(voice, voice=voice, sinks=["socket"], seed=3) as stream:
                with AudioReader(stream) as reader:
                    send_all(stream, MEL[:100], [4], realtime=True)
                    begins.set()
                    send_all(stream, MEL[100:], [4], realtime=True)
                    stream.wait_played(WAIT_S)
                heard[voice] = reader.samples

        threads = [threading.Thread(target=talk, args=(voice, one)) for voice, one in zip("ac", begun)]
        for thread in threads:
            thread.start()
        for one in begun:
            assert one.wait(WAIT_S)
        daemon.edit(AFTER, "[log]\nlevel = 'debug'")
        told = daemon.reload()
        assert (told.ok, told.added, told.removed, told.changed) == (True, ["b"], ["c"], ["a"])
        assert told.settings == ["log.level"] and not told.needs_restart
        with pytest.raises(errors.Refused, match="there is no voice 'c'; choose one of a, b"):
            client.open(voice="c")
        altered, _ = speak(client, MEL, [4], voice="a", seed=3)
        added, _ = speak(client, MEL, [4], voice="b", seed=3)
        for thread in threads:
            thread.join(WAIT_S)
    np.testing.assert_array_equal(heard["a"], expected)
    np.testing.assert_array_equal(heard["c"], removed)
    np.testing.assert_array_equal(added, expected)
    assert np.abs(altered - expected).max() > 0.01, "new streams have the new settings"
    until(lambda: set(daemon.role_pids()) == {"gateway", "engine a@1", "engine b"}, "the old engines end")


def test_wrong_file_changes_nothing(daemon: Reloadable, capsys: pytest.CaptureFixture[str]) -> None:
    before = daemon.role_pids()
    faults = {
        "[server]\nmax_strems = 2": r"unknown setting server.max_strems",
        "x = {engine='waveglow',checkpoint='none.safetensors'}": r"engine:x could not start: .*none.safetensors",
        "x = {engine='nothing'}": r"voices.x.engine must be one of",
    }
    with daemon.client() as client:
        for text, words in faults.items():
            daemon.edit(f"{BEFORE.replace('a = {', 'a = {iterations=9,')}\n{text}")
            told = daemon.reload()
            assert not told.ok and re.search(words, told.text)
        for _ in range(2):
            assert glowctl.main(["--endpoint", daemon.endpoint, "reload"]) == 1
            assert capsys.readouterr().err.startswith("glowctl: voices.x.engine must be one of")
        assert daemon.role_pids() == before
        until(lambda: "all is as it was: voices.x.engine" in "".join(daemon.launched.output), "the log")
        # A process that dies now is started with the settings that are in force, not with the file.
        os.kill(before["engine c"], signal.SIGKILL)
        until(lambda: daemon.role_pids().get("engine c", before["engine c"]) != before["engine c"], "a restart")
        until(lambda: {voice["name"] for voice in client.refresh().voices} == {"a", "c"}, "the voice is back")
        speak(client, MEL[:50], voice="c")


def test_what_needs_a_restart_is_named(daemon: Reloadable, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.edit(BEFORE, "[speaker]\nblock_ms = 20\n[web]\nport = 7\n[files]\ndirectory = 'elsewhere'")
    assert glowctl.main(["--endpoint", daemon.endpoint, "reload"]) == 0
    assert capsys.readouterr().out == (
        "settings: files.directory\nneeds a restart, and is as before: speaker.block_ms, web.port\n"
    )
    assert glowctl.main(["--endpoint", daemon.endpoint, "reload"]) == 0
    assert capsys.readouterr().out == "needs a restart, and is as before: speaker.block_ms, web.port\n"


def test_signal_reloads_and_the_manager_is_told(tmp_path: Path) -> None:
    manager = NotifySocket(tmp_path / "notify")
    try:
        with running(tmp_path, env=manager.env) as daemon, daemon.client() as client:
            manager.expect("READY", "1")
            daemon.edit(BEFORE, "[log]\nlevel = 'debug'")
            daemon.process.send_signal(signal.SIGHUP)
            began = manager.expect("RELOADING", "1")
            assert int(began["MONOTONIC_USEC"]) > 0
            assert manager.expect("READY", "1")["STATUS"].startswith("ready; voices a")
            until(lambda: "reloaded the settings: settings: log.level" in "".join(daemon.launched.output), "the log")
            assert client.status().state == "ready"
    finally:
        manager.close()


def test_restarted_gateway_keeps_what_was_reloaded(daemon: Reloadable) -> None:
    daemon.edit(AFTER)
    assert daemon.reload().ok
    daemon.edit("x = {engine='nothing'}")
    os.kill(daemon.role_pids()["gateway"], signal.SIGKILL)
    until(lambda: "gateway" in daemon.role_pids(), "a restart")
    with daemon.client() as client:
        until(lambda: {voice["name"] for voice in client.refresh().voices} == {"a", "b"}, "the voices are back")
