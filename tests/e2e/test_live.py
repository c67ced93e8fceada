"""`glowlab compare` speaks through a daemon of its own, as a user would."""

from pathlib import Path

import numpy as np
import pytest

from glowd.flow.checkpoint import load
from glowd.flow.evaluation import live
from glowd.flow.streaming import whole
from tests.harness.mels import speech


def test_live_speech_equals_offline_rendering() -> None:
    mel = speech()[100:160]
    with live.running("embedded") as daemon:
        heard = daemon.render(mel, 22050, seed=3)
        folder = daemon.folder
    offline = whole(load("embedded"), mel, 3)
    assert len(heard) == len(mel) * 256 and np.abs(heard - offline).max() < 1e-4  # a step of 16 bits is 3e-5
    assert not folder.exists()


def test_missing_checkpoint_raises_with_the_daemons_log(tmp_path: Path) -> None:
    with (
        pytest.raises(live.LiveError, match=r"(?s)glowd did not become ready; its log ends with:.*none\.safetensors"),
        live.running(str(tmp_path / "none.safetensors")),
    ):
        pass


def test_failed_glowctl_raises_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ANSWER_S", 1)  # nobody will answer
    daemon = live.LiveRenderer(f"ipc://{tmp_path}/nobody.ipc", tmp_path)
    with pytest.raises(live.LiveError, match="glowctl send ended with status 1"):
        daemon.render(np.zeros((4, 80), np.float32), 22050, 0)


def test_commands_are_those_a_user_would_type() -> None:
    start, send = live.commands("embedded", 7)
    assert (
        start
        == """glowd --set 'voices={glow={engine="waveglow", checkpoint="embedded"}}' --set speaker.enabled=false"""
    )
    assert send.startswith("glowctl send MEL.npy --pace realtime") and send.endswith("--seed 7 --out SPEECH.wav")
