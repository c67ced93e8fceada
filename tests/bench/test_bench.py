"""The bench itself: every part still runs, and what it says is what was measured."""

import json
import xml.etree.ElementTree
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from glowd.daemon.engine.capacity import SHARE
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from tests.bench import plots, report
from tests.bench.__main__ import PARTS, Sizes, main
from tests.bench.backends import floors
from tests.bench.report import Result
from tests.bench.simulation.figures import STREAM_MS
from tests.bench.simulation.scale import CORE


@pytest.mark.parametrize(
    ("part", "figure", "pictures"),
    [
        ("network", "RTF per stream", ["rtf"]),
        ("published", "utterance: plain over ours", []),
        ("backends", "by backend: torch over it", []),
        ("context", "truncated context: SNR", ["context"]),
        ("gateway", "gateway: streams that one core serves", []),
        ("fronts", "HTTP: added to the first audio, p50", []),
        ("overload", "offered streams: chunk p99", ["overload-latency", "overload-underruns"]),
        ("scale", "scale: what live streams need", []),
        ("simulated-chunks", "simulated gateway: chunk p99", ["gateway"]),
        ("simulated-days", "simulated day: refused", ["day", "rules"]),
    ],
)
def test_a_part_runs_and_leaves_figures_and_pictures(
    tmp_path: Path, part: str, figure: str, pictures: list[str]
) -> None:
    main([part, "--quick", "--out", str(tmp_path)])
    run, *others = json.loads((tmp_path / "results.json").read_text())
    assert {"commit", "device", "date", "torch", "cores", "load"} <= run.keys()
    kinds_of_engines = {"simulated-chunks": 3, "scale": 2, "gateway": 3}  # of which one is this machine, whose it is
    assert 1 + len(others) == kinds_of_engines.get(part, 1)
    rows = [row for one in (run, *others) for row in one["results"]]
    assert all(row["value"] == row["value"] for row in rows), "a figure is not a number"
    page = (tmp_path / "RESULTS.md").read_text()
    assert f"\n| {figure} | " in page and f"commit {run['commit']}, date {run['date']}, torch " in page
    found = sorted(path.name for path in tmp_path.glob("plots/*.svg"))
    assert len(found) == len(pictures) and all(f"-{name}.svg" in " ".join(found) for name in pictures)
    for name in found:
        assert f"](plots/{name})" in page
        assert (tmp_path / "plots" / name).stat().st_size < 60_000
        xml.etree.ElementTree.parse(tmp_path / "plots" / name)


def given(found: list[Result], device: str, sizes: Sizes) -> Iterator[Result]:
    """A part that measures nothing."""
    return iter(found)


def test_what_streams_need_is_reckoned_anew_with_the_gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its newest run, whatever an older one had with more streams."""
    for commit, ms, streams in (("aaa", 8.0, 400), ("bbb", 5.0, 64)):
        monkeypatch.setattr(report, "_git", lambda *_, commit=commit: commit)
        settings = {"streams": streams, "chunk_frames": 4, "sink": "socket"}
        others = [Result(STREAM_MS, 1.0, "ms", "CPU", settings | more) for more in ({"sink": "null"}, {"gateways": 2})]
        found = [Result(STREAM_MS, ms, "ms", "CPU", settings), *others]
        monkeypatch.setitem(PARTS, "gateway", partial(given, found))
        main(["gateway", "--out", str(tmp_path)])
    lines = (tmp_path / "RESULTS.md").read_text().splitlines()
    cores = [line.split(" | ")[1] for line in lines if f"part {CORE}, " in line]
    assert cores == [f"{1000 * SHARE / 5.0:.4g}"] * 2, "CPU core and H100"


def test_simulated_figures_are_of_one_run_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their settings follow from what was measured: of other settings before nothing may stay beside them."""

    def simulated(*streams: int) -> list[Result]:
        rows = [Result("simulated gateway: chunk p99", n / 10, "ms", "CPU", {"streams": n}) for n in streams]
        return [*rows, row(9.0, chunk_frames=streams[0])]

    for commit, streams in (("aaa", (12, 24)), ("bbb", (18, 24)), ("bbb", (30,))):
        monkeypatch.setattr(report, "_git", lambda *_, commit=commit: commit)
        report.write(simulated(*streams), BEFORE, tmp_path)
        shown = report.newest(report.load_runs(tmp_path), "CPU")
        assert {one.settings["streams"] for one, _ in shown if one.name.startswith("simulated")} == {*streams}
    assert sum(one.name == "RTF per stream" for one, _ in shown) == 3, "what was measured stays"
    assert [len(run["results"]) for run in report.load_runs(tmp_path)] == [3, 3]


def test_plot_of_a_day_says_how_many_streams_are_open_at_once(tmp_path: Path) -> None:
    counts = {"offered": 51_234.0, "refused": 0.0, "most open": 1130.0}
    curve = {"hour": [0.0], "streams": [1.0]}
    settings = {"rule": "fixed", "streams": 50_000}
    report.write(
        [
            Result("simulated day: refused", 0.0, "%", "CPU", settings, "", counts),
            Result("simulated day: streams", 1.0, "streams", "CPU", {"rule": "open streams"}, "", {}, curve),
        ],
        BEFORE,
        tmp_path,
    )
    page = (tmp_path / "RESULTS.md").read_text()
    assert "50,000 streams are all of the day; at most 1,130 of them are open at once." in page


def test_quick_figures_are_not_kept_unless_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "write", lambda *_: pytest.fail("kept"))
    monkeypatch.setitem(PARTS, "soak", lambda device, sizes: iter([row()]))
    main(["soak", "--quick"])


def test_the_folder_for_the_figures_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(PARTS, "soak", lambda device, sizes: iter([row()]))
    main(["soak", "--quick", "--out", str(tmp_path / "new" / "run")])
    assert (tmp_path / "new" / "run" / "results.json").exists(), "what took minutes to measure is not lost at the end"


def test_a_part_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["networks"])
    assert ended.value.code == 2 and "no part 'networks'; the parts are network, published" in capsys.readouterr().err


def test_floors_of_arithmetic_and_traffic_match_hand_counts() -> None:
    config = WaveGlowConfig(group=64, flows=1, layers=2, channels=10, kernel=3, cond_channels=7)
    conditioning, start, end, unmix = 7 * 2 * 20, 32 * 10, 20 * 64, 64 * 64
    layers = 2 * 30 * 20 + 10 * 10  # the last one has no residual
    narrow, past = conditioning + start + end + layers, (2 + 4) * 10
    flop, moved = floors(WaveGlow(config), torch.bfloat16, streams=3, groups=5)
    assert flop == 2 * 15 * (narrow + unmix)
    assert moved == 2 * narrow + 4 * unmix + 2 * 3 * 2 * past + 15 * (2 * 7 + 4 * 64 + 4 * 64)


# ---------------------------------------------------------------------- results


def row(value: float = 1.0, name: str = "RTF per stream", device: str = "CPU", **settings: Any) -> Result:
    asked = {"voice": "v", "chunk_frames": 4, "streams": 1, "threads": 1} | settings
    return Result(name, value, "s/s", device, asked, "<= 2", {"p50": 7.5})


BEFORE = {"date": "2026-01-02", "torch": "2", "python": "3", "cores": 2, "load": 0.1}


def test_report_shows_newest_values_and_keeps_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for commit, values in (("aaa", {4: 1.0, 8: 0.5}), ("bbb", {4: 3.0})):
        monkeypatch.setattr(report, "_git", lambda *_, commit=commit: commit)
        report.write([row(value, chunk_frames=frames) for frames, value in values.items()], BEFORE, tmp_path)
    report.write([row(2.5), row(9, device="GPU")], BEFORE, tmp_path)
    runs = report.load_runs(tmp_path)
    assert [(run["commit"], run["device"], [r["value"] for r in run["results"]]) for run in runs] == [
        ("aaa", "CPU", [1.0, 0.5]), ("bbb", "CPU", [2.5]), ("bbb", "GPU", [9])
    ]  # fmt: skip
    lines = (tmp_path / "RESULTS.md").read_text().splitlines()
    figures = [line for line in lines if line.startswith("| RTF")]
    assert figures == [
        "| RTF per stream | 2.5 | s/s | <= 2: **missed** | p50 7.5 | voice v, chunk_frames 4, streams 1, threads 1 | bbb, 2026-01-02 |",  # noqa: E501
        "| RTF per stream | 0.5 | s/s | <= 2: met | p50 7.5 | voice v, chunk_frames 8, streams 1, threads 1 | aaa, 2026-01-02 |",
        "| RTF per stream | 9 | s/s | <= 2: **missed** | p50 7.5 | voice v, chunk_frames 4, streams 1, threads 1 | bbb, 2026-01-02 |",  # noqa: E501
    ]
    assert (tmp_path / "plots/cpu-rtf.svg").exists() and (tmp_path / "plots/gpu-rtf.svg").exists()


def test_a_plot_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    report.write([row(), row(0.5, chunk_frames=8)], BEFORE, tmp_path)
    picture = tmp_path / "plots/cpu-rtf.svg"
    first, page = picture.read_bytes(), (tmp_path / "RESULTS.md").read_bytes()
    picture.unlink()
    main(["--draw", "--out", str(tmp_path)])
    assert picture.read_bytes() == first and (tmp_path / "RESULTS.md").read_bytes() == page


def test_a_plot_has_the_points_that_were_measured_in_order() -> None:
    (rtf,) = [plot for plot in plots.PLOTS if plot.name == "rtf"]
    rows = [
        row(0.2, chunk_frames=8),
        row(0.4),
        row(9, streams=3),
        row(0.3, threads=2),
        row(float("inf"), chunk_frames=1),
    ]
    assert rtf.curves([(one, {}) for one in [*rows, row(name="other")]]) == {
        "v, 1 threads": [(4, 0.4), (8, 0.2)], "v, 2 threads": [(4, 0.3)]
    }  # fmt: skip


def test_a_series_is_a_curve_and_not_in_the_table(tmp_path: Path) -> None:
    series = {"hour": [0.0, 1.0], "streams": [3.0, 4.0]}
    day = Result("simulated day: capacity", 4.0, "streams", "CPU", {"rule": "fixed"}, "", {}, series)
    report.write([day, row()], BEFORE, tmp_path)
    kept = [one for run in report.load_runs(tmp_path) for one in run["results"]]
    assert [one.get("series") for one in kept] == [series, None]
    (plot,) = [plot for plot in plots.PLOTS if plot.name == "day"]
    assert plot.curves([(Result(**one), {}) for one in kept]) == {"fixed": [(0.0, 3.0), (1.0, 4.0)]}
    assert (tmp_path / "plots/cpu-day.svg").exists() and "[3.0, 4.0]" not in (tmp_path / "RESULTS.md").read_text()


def test_percentiles_and_their_spread() -> None:
    found = report.percentiles_ms([n / 1000 for n in range(101)])
    assert found == pytest.approx({"p50": 50, "p90": 90, "p99": 99, "max": 100, "iqr": 50})
