"""The program in README.md runs as README.md says."""

import os
import re
import subprocess
import sys

from tests.harness.daemon import ROOT, running_daemon
from tests.harness.mels import speech
from tests.patience import WAIT_S


def test_program_of_the_readme_speaks() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), flags=re.S)
    assert len(blocks) == 1 and 'sinks=["device"]' in blocks[0]
    program = blocks[0].replace('sinks=["device"]', 'sinks=["null"]')  # a sound device is not what this is about
    with running_daemon("speaker.enabled=false", 'voices={glow={engine="waveglow",max_streams=2}}') as daemon:
        said = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"GLOWD_ENDPOINT": daemon.endpoint},
            capture_output=True, text=True, timeout=5 * WAIT_S, check=True,
        )  # fmt: skip
    assert re.search(r"Played\(.*total_samples=" + str(len(speech()) * 256), said.stdout)
