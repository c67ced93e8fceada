"""Clients whose clocks differ from that of the sound device, through a whole daemon and a sound server."""

from collections.abc import Sequence

import numpy as np
import pytest

from glowd.clients.cli.tables import streams_table
from glowd.daemon.wire.telemetry import Snapshot
from tests.fakes.roles import RATE
from tests.fakes.tones import tone
from tests.harness.drifting import (
    FOLLOWED_S,
    STEPS,
    TONES_HZ,
    WITHIN_MS,
    Look,
    clocked_clients,
    held_ms,
    known_s,
    looks_of,
    off_ms,
    sounding,
    steps_off,
    tone_daemon,
    watch,
)
from tests.harness.pulse import PulseServer
from tests.harness.waiting import repeated_after_stalls

JUDGED_S, LONGEST_S = 10, 120
"""For how long the latency must be held; and how long to speak at most, if the machine is so busy that no clock can be told."""


def shown(snapshot: Snapshot, stream: str, column: str) -> float:
    """What `glowctl top` shows."""
    table = streams_table(snapshot)
    (row,) = [row for row in table.rows if row[0] == stream]
    return float(row[table.columns.index(column)])


def as_text(looks: Sequence[Look]) -> str:
    """What was seen in every fourth second."""
    return ", ".join(f"{look.at_s:.0f} s {look.latency_ms} ms {look.drift_ppm} ppm" for look in looks[::4])


@repeated_after_stalls
def test_clients_with_other_clocks_keep_their_latency(pulse: PulseServer) -> None:
    """Uncorrected, the latency of two of them would move by 30 ms meanwhile."""
    with (
        tone_daemon(pulse.env) as daemon,
        daemon.client() as glow,
        pulse.record("glow") as recording,
        clocked_clients(daemon.endpoint) as clients,
    ):
        seconds = []
        for found in watch(glow, LONGEST_S):
            seconds.append(found)
            looks = looks_of(seconds)
            if len(looks) == len(clients) and found[0] > max(map(known_s, looks.values())) + FOLLOWED_S + JUDGED_S:
                break
        for client in clients:
            client.end()
        spoken = {client.name: client.spoken() for client in clients}
        heard = sounding(recording.samples())
    for name, one in spoken.items():
        seen = looks[name]
        assert off_ms(seen) < WITHIN_MS, f"{name}: held {held_ms(seen):.1f} ms; {as_text(seen)}"
        assert (one.samples, one.underruns) == (one.sent_samples, 0)
        assert seen[-1].skipped_ms == 0
    assert steps_off(heard) < STEPS  # each sample was heard, and once
    newest = seconds[-1][1]
    fast, slow, own = (shown(newest, name, "DRIFT") for name in spoken)
    assert fast - own == pytest.approx(500, abs=120) and slow - own == pytest.approx(-500, abs=120)
    assert shown(newest, clients[0].name, "LATENCY") > 0


def test_sample_that_is_missing_would_be_heard() -> None:
    whole = np.sum([tone(f_hz, 0, 3 * RATE) for f_hz in TONES_HZ], 0)
    assert steps_off(whole) < 1
    assert steps_off(np.delete(whole, RATE)) > 100 and steps_off(np.insert(whole, RATE, whole[RATE])) > 100
