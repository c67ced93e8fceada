"""A real scrape has every metric, and every label, that the dashboard asks for."""

import json
import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.harness.daemon import ROOT, running_daemon
from tests.harness.mels import speech
from tests.harness.speaking import speak
from tests.harness.waiting import until

DASHBOARD = ROOT / "clients" / "web" / "grafana.json"
README = ROOT / "clients" / "README.md"
LIGHT = ("voices={glow={engine='waveglow',max_streams=2}}", "speaker.enabled=false", "web.enabled=true", "web.port=0")
METRIC = re.compile(r"\bglowd_\w+")
OF_PROMETHEUS = {"instance", "le"}
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def expressions() -> list[str]:
    """Every query of the dashboard."""
    board = json.loads(DASHBOARD.read_text())
    queries = [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    return queries + [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def labels_asked() -> dict[str, set[str]]:
    """The labels that the dashboard uses, by metric."""
    asked: dict[str, set[str]] = {}
    for expression in expressions():
        grouped = {word for group in re.findall(r"\bby \(([^)]*)\)", expression) for word in group.split(", ")}
        for name, selector in re.findall(r"\b(glowd_\w+)(?:\{([^}]*)\})?", expression):
            selected = set(re.findall(r"(\w+)=", selector))
            asked.setdefault(name, set()).update((grouped | selected) - OF_PROMETHEUS)
    return asked


OF_OTHER_MACHINES = {"glowd_engine_round_trip_seconds", "glowd_engine_jitter_seconds"}
"""Metrics that a daemon without engines on other machines does not have; tests/clients/web/test_metrics.py has them."""


def scrape(url: str, token: str) -> dict[str, set[str]]:
    """The labels of each sample's name."""
    request = urllib.request.Request(f"{url}metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, set[str]] = {}
    for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
        found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_dashboard_asks_only_for_what_a_scrape_has() -> None:
    asked = labels_asked()
    assert len(asked) > 20
    with running_daemon(*LIGHT) as daemon, daemon.client() as client:
        assert daemon.launched.ready
        url, _, token = daemon.launched.ready.web.partition("#token=")
        stream = client.open(sinks=["null"])
        speak(client, speech()[:100])
        found: dict[str, set[str]] = {}

        def is_complete() -> bool:
            found.update(scrape(url, token))
            return asked.keys() <= found.keys()

        until(is_complete, f"a scrape with {asked.keys()}", every_s=0.3)
        assert {name: labels - found[name] for name, labels in asked.items() if labels - found[name]} == {}
        stream.close()
    documented = set(METRIC.findall(README.read_text())) - OF_OTHER_MACHINES
    assert {SUFFIXES.sub("", name) for name in found} == documented, "clients/README.md lists all metrics"
