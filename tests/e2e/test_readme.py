"""The Python programs in README.md and clients/README.md run as they stand there."""

import os
import re
import subprocess
import sys

import pytest

from tests.harness.daemon import ROOT, running_daemon
from tests.harness.mels import speech
from tests.harness.waiting import WAIT_S


def programs(document: str) -> list[str]:
    """The Python blocks of a document, with the null sink for the sound device, which is not what this is about."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), flags=re.S)
    return [block.replace('sinks=["device"]', 'sinks=["null"]') for block in blocks]


PRINTED = {
    "README.md": [rf"Played\(.*total_samples={len(speech()) * 256}, underruns=0\)"],
    "clients/README.md": [rf"Played\(.*total_samples={len(speech()) * 256}", "True 22050", "(Flushed|Played)", "True"],
}


@pytest.mark.parametrize("document", PRINTED)
def test_readme_programs_run_and_print_what_they_say(document: str) -> None:
    found = programs(document)
    assert len(found) == len(PRINTED[document])
    with running_daemon("speaker.enabled=false", 'voices={glow={engine="waveglow",max_streams=2}}') as daemon:
        for program, printed in zip(found, PRINTED[document], strict=True):
            ran = subprocess.run(
                [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"GLOWD_ENDPOINT": daemon.endpoint},
                capture_output=True, text=True, timeout=5 * WAIT_S,
            )  # fmt: skip
            assert ran.returncode == 0 and re.search(printed, ran.stdout), ran.stdout + ran.stderr
