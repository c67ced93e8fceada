"""The Python programs in README.md and clients/README.md, and a training in flow/README.md, run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from glowd.flow.mel import log_mel
from glowd.flow.training.voice_mel import voice_mel
from tests.harness.daemon import ROOT, running_daemon
from tests.harness.mels import speech
from tests.harness.recordings import voice_like, write_recordings
from tests.harness.waiting import WAIT_S


def programs(document: str) -> list[str]:
    """The Python blocks of a document, with the null sink for the sound device, which is not what this is about."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), flags=re.S)
    return [block.replace('sinks=["device"]', 'sinks=["null"]') for block in blocks]


PRINTED = {
    "README.md": [rf"Played\(.*total_samples={len(speech()) * 256}, underruns=0\)"],
    "clients/README.md": [
        rf"Played\(.*total_samples={len(speech()) * 256}",
        "True 22050",
        "(Flushed|Played)",
        "",
        "True",
    ],
}


@pytest.mark.parametrize("document", PRINTED)
def test_readme_programs_run_and_print_what_they_say(document: str, tmp_path: Path) -> None:
    found = programs(document)
    assert len(found) == len(PRINTED[document])
    voice = 'voices={glow={engine="waveglow",max_streams=2}}'
    with running_daemon("speaker.enabled=false", "web.enabled=true", "web.port=0", voice) as daemon:
        assert daemon.launched.ready is not None
        url, _, token = daemon.launched.ready.web.partition("/#token=")
        here = {"http://127.0.0.1:7767": url, "TOKEN": repr(token), "speech.wav": str(tmp_path / "speech.wav")}
        for program, printed in zip(found, PRINTED[document], strict=True):
            for there, value in here.items():
                program = program.replace(there, value)
            ran = subprocess.run(
                [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"GLOWD_ENDPOINT": daemon.endpoint},
                capture_output=True, text=True, timeout=5 * WAIT_S,
            )  # fmt: skip
            assert ran.returncode == 0 and re.search(printed, ran.stdout), ran.stdout + ran.stderr
            assert "speech.wav" not in program or (tmp_path / "speech.wav").stat().st_size > 10_000


SHORTER = {
    "glowlab pitch": "glowlab pitch --steps 2 --batch 32",
    "glowlab train": "glowlab train --steps 1 --batch 1 --validation-segments 1",
    "glowlab evaluate": "glowlab evaluate --jobs 1 --seeds 1 --clips 1",
    "held-out": "test",
    "speech": "data",
}
"""What makes the commands of flow/README.md a matter of seconds, and where recordings are here."""


def test_training_for_another_toolkit_runs_as_typed(tmp_path: Path) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "flow/README.md").read_text("utf-8"), flags=re.S)
    for long, short in SHORTER.items():
        assert long in block
        block = block.replace(long, short)
    training, (serving, sending) = block.splitlines()[:-2], block.splitlines()[-2:]
    write_recordings(tmp_path / "data", 2)
    write_recordings(tmp_path / "test", 1)
    soundfile.write(tmp_path / "test" / "one.wav", voice_like(1.0, 3), 22050)
    for name in ("flow", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    shell = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 20 * WAIT_S}
    ran = subprocess.run(["bash", "-e", "-c", "\n".join(training)], **shell)  # type: ignore[call-overload]
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert soundfile.info(tmp_path / "copy.wav").samplerate == 24_000 and "STOI" in ran.stdout
    mel = log_mel(voice_like(1.0, 3, 24_000), voice_mel("vocos"))
    np.save(tmp_path / "frames.npy", mel)
    (setting,) = re.findall(r"--set '(.*)'", serving)
    served = setting.replace("finer/", f"{tmp_path}/finer/").replace("}}", ",max_streams=2}}")
    with running_daemon("speaker.enabled=false", served) as daemon:
        shell["env"] = os.environ | {"GLOWD_ENDPOINT": daemon.endpoint}
        ran = subprocess.run(["bash", "-e", "-c", sending], **shell)  # type: ignore[call-overload]
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = soundfile.info(tmp_path / "said.wav")
    assert (said.samplerate, said.frames) == (24_000, len(mel) * 256)
