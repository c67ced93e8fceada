"""GET /metrics: what Prometheus reads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from glowd.clients.web import figures
from glowd.clients.web.app import create_app
from glowd.clients.web.site import Site
from tests.clients.web.test_app import Publisher, publisher
from tests.harness.snapshots import SNAPSHOT
from tests.harness.waiting import until

__all__ = ["publisher"]

TOKEN = "t" * 16
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
HISTOGRAM = {"counts": [1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1], "sum_s": 2.5}
TOTALS = {
    "voices": {
        "glow": {
            "audio_s": 12.5, "utterances": {"played": 3, "flushed": 1}, "first_audio": HISTOGRAM,
            "stages": {"network": HISTOGRAM, "odd": {"counts": [1, 2], "sum_s": 1.0}},
        }
    },
    "starved_s": {"client": 0.5, "engine": 0.0}, "gaps": {"client": 2, "engine": 0}, "refused": {"AT_CAPACITY": 4},
}  # fmt: skip


@pytest.fixture
def web(publisher: Publisher) -> Iterator[TestClient]:
    site = Site(endpoint="", telemetry=publisher.endpoint, token=TOKEN)
    with TestClient(create_app(site), base_url="http://127.0.0.1") as client:
        yield client


def samples(text: str) -> dict[str, float]:
    """All samples by name and labels."""
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(web: TestClient, publisher: Publisher, snapshot: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}

    def arrived() -> bool:
        publisher.publish(msgpack.packb(snapshot))
        found.update(samples(web.get("/metrics", headers=HEADERS).text))
        return found["glowd_up"] == 1

    until(arrived)
    return found


def test_metrics_need_the_token(web: TestClient) -> None:
    assert web.get("/metrics").status_code == 401
    assert web.post("/metrics", headers=HEADERS).status_code == 405


def test_daemon_that_is_away_is_down_and_nothing_else(web: TestClient) -> None:
    answer = web.get("/metrics", headers=HEADERS)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    found = samples(answer.text)
    assert found.pop("glowd_up") == 0
    assert [name.partition("{")[0] for name in found] == ["glowd_build_info"]


def test_old_figures_are_not_shown(web: TestClient, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    scraped(web, publisher, SNAPSHOT)
    monkeypatch.setattr(figures, "STALE_S", 0.01)
    monkeypatch.setattr(figures, "PASS_MS", 20)
    until(lambda: "glowd_streams" not in web.get("/metrics", headers=HEADERS).text)


def test_snapshot_is_told_in_metrics(web: TestClient, publisher: Publisher) -> None:
    found = scraped(web, publisher, SNAPSHOT | {"totals": TOTALS})
    expected = {
        "glowd_state{state=ready}": 1, "glowd_state{state=degraded}": 0, "glowd_stalled": 0, "glowd_uptime_seconds": 12.5,
        "glowd_clients": 2, "glowd_streams_limit": 16, "glowd_streams{state=playing}": 1, "glowd_streams{state=idle}": 1,
        "glowd_process_up{process=gateway}": 1, "glowd_process_up{process=speaker}": 0,
        "glowd_process_resident_memory_bytes{process=gateway}": 40 << 20,
        "glowd_voice_ready{voice=glow}": 1, "glowd_voice_streams{voice=twins}": 3,
        "glowd_voice_capacity_streams{voice=glow}": 9, "glowd_committed_ratio{voice=twins}": 3 / 8,
        "glowd_engine_busy_ratio{voice=glow}": 0.25, "glowd_engine_stolen_ratio{voice=glow}": 0.5,
        "glowd_engine_late_ratio{voice=glow}": 0, "glowd_overload_level{voice=glow}": 0,
        "glowd_audio_seconds_total{voice=glow}": 12.5,
        "glowd_utterances_total{ending=played}{voice=glow}": 3, "glowd_utterances_total{ending=flushed}{voice=glow}": 1,
        "glowd_starved_seconds_total{by=client}": 0.5, "glowd_gaps_total{by=client}": 2,
        "glowd_opens_refused_total{reason=AT_CAPACITY}": 4,
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected
    assert not [name for name in found if "talk" in name or "tts" in name], "no names of streams or clients"
    assert "glowd_committed_ratio{voice=old}" not in found, "what was not measured is absent"


def test_voice_that_takes_no_stream_is_committed(web: TestClient, publisher: Publisher) -> None:
    """All its engines are cordoned, say: an autoscaler has to see that it is full."""
    found = scraped(web, publisher, SNAPSHOT | {"voices": {"glow": {"open": 0, "max_streams": 0}, "old": {"open": 0}}})
    assert found["glowd_committed_ratio{voice=glow}"] == 1 and "glowd_committed_ratio{voice=old}" not in found


def test_way_to_an_engine_elsewhere_is_told(web: TestClient, publisher: Publisher) -> None:
    far = {"link": {"version": 2, "trip_ms": 25.0, "jitter_ms": 4.0}}
    old = {"link": {"version": 1, "trip_ms": None, "jitter_ms": None}}
    found = scraped(
        web, publisher, SNAPSHOT | {"voices": {"glow": {"engines": {"glow/far": far, "glow/old": old, "glow/0": {}}}}}
    )
    links = {name: value for name, value in found.items() if "trip" in name or "jitter" in name}
    assert links == {
        "glowd_engine_round_trip_seconds{process=engine:glow/far}": 0.025,
        "glowd_engine_jitter_seconds{process=engine:glow/far}": 0.004,
    }


def test_histograms_are_cumulative(web: TestClient, publisher: Publisher) -> None:
    found = scraped(web, publisher, SNAPSHOT | {"totals": TOTALS})
    first = {
        name.partition("le=")[2].partition("}")[0]: value
        for name, value in found.items()
        if "first_audio_seconds_bucket" in name
    }
    assert (first["0.001"], first["0.0025"], first["0.005"], first["0.64"], first["+Inf"]) == (1, 1, 3, 3, 4)
    assert found["glowd_first_audio_seconds_count{voice=glow}"] == 4
    assert found["glowd_first_audio_seconds_sum{voice=glow}"] == 2.5
    assert found["glowd_chunk_seconds_count{stage=network}{voice=glow}"] == 4
    assert not [name for name in found if "stage=odd" in name], "buckets of another version are left out"


def test_stall_and_other_states_are_told(web: TestClient, publisher: Publisher) -> None:
    found = scraped(web, publisher, SNAPSHOT | {"state": "degraded", "stall": "engine glow has made no audio"})
    assert (found["glowd_stalled"], found["glowd_state{state=degraded}"], found["glowd_state{state=ready}"]) == (
        1,
        1,
        0,
    )


def test_openmetrics_is_sent_to_those_that_ask_for_it(web: TestClient) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = web.get("/metrics", headers=HEADERS | accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text") and answer.text.endswith("# EOF\n")


def test_dashboard_is_valid_and_has_no_two_panels_in_one_place() -> None:
    path = Path(__file__).parents[3] / "clients" / "web" / "grafana.json"
    panels = json.loads(path.read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels) > 10 and len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 and panel["targets"] for panel in panels)
