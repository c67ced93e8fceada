"""Engines that join from elsewhere by TCP: they serve, die, come back and leave, and no sample is lost or altered."""

from collections.abc import Iterator

import numpy as np
import pytest

from glowd.flow.checkpoint import load
from glowd.flow.streaming import ExactVocoder, VocoderOptions
from glowd.flow.vocoder import render
from tests.harness.joining import Site, engines, running_site
from tests.harness.mels import speech
from tests.harness.speaking import speak
from tests.harness.waiting import WAIT_S

MEL = speech()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site") / "keys") as running:
        yield running


def offline(seed: int) -> np.ndarray:
    return render(ExactVocoder(load("embedded"), VocoderOptions(slots=1)), MEL, seed)


def test_engine_that_joins_speaks_and_leaves(site: Site) -> None:
    with site.daemon.client() as glow:
        assert not glow.status().info["voices"]["glow"]["ready"]
        engine = site.start("one", "--set", "voices.glow.max_streams=4")
        site.wait("one")
        samples, _ = speak(glow, MEL, seed=4)
        np.testing.assert_allclose(samples, offline(4), atol=1e-5)
        assert engines(glow)["glow/one"]["max_streams"] == 4
        engine.process.terminate()
        assert engine.process.wait(WAIT_S) == 0, "".join(engine.output)
        assert engines(glow) == {}
