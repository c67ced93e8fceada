"""What the tests of upstreams share."""

import numpy as np

from glowd.clients.upstream import Manner, Upstream
from glowd.flow.mel import Floats, MelFormat

WANTED = MelFormat()


def frames_of(upstream: Upstream, text: str, wanted: MelFormat = WANTED, manner: Manner = Manner()) -> Floats:
    """All frames of a text."""
    chunks = list(upstream.speak(text, wanted, manner).frames)
    assert all(len(chunk) and chunk.dtype == np.float32 for chunk in chunks)
    return np.concatenate([np.zeros((0, wanted.n_mels), np.float32), *chunks])
