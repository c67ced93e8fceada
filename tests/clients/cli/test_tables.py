"""Snapshots as tables: measured figures are shown, others are dashes."""

import copy
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from glowd.clients.cli import tables
from glowd.daemon import wire
from tests.daemon.messages import plain
from tests.harness.snapshots import SNAPSHOT, STAGE

read = wire.Snapshot.from_map


def row_of(table: tables.Table, name: str) -> dict[str, str]:
    return next(dict(zip(table.columns, row)) for row in table.rows if row[0] == name)


def test_measured_figures_are_shown() -> None:
    row = row_of(tables.streams_table(read(SNAPSHOT)), "talk")
    assert row == {
        "<STREAM": "talk", "<CLIENT": "tts", "<STATE": "playing", "<VOICE": "glow", "<SINKS": "device,socket", "GEN": "2",
        "TTFA": "61", "RTF": "0.31", "QUEUE": "3", "CREDIT": "120",
        "LATENCY": "187", "DRIFT": "+42", "BEHIND": "240", "XRUN": "1/0/2",
    }  # fmt: skip
    stages = row_of(tables.stages_table(read(SNAPSHOT)), "talk")
    assert stages["NETWORK"] == "1.2/9.5" and stages["DEVICE"] == "-" and stages["MEAN SUM"] == "4.0"
    voice = row_of(tables.voices_table(read(SNAPSHOT)), "glow *")
    shown = ("<STATE", "OPEN", "BUSY %", "STOLEN %", "LATE %", "LEVEL")
    assert [voice[column] for column in shown] == ["ready", "2/9", "25", "50", "0", "0"]
    assert row_of(tables.roles_table(read(SNAPSHOT)), "speaker") == {
        "<ROLE": "speaker", "<STATE": "gone", "MiB": "-", "<DEVICE": "no device"
    }  # fmt: skip


def test_nodes_are_shown_where_there_is_a_cluster() -> None:
    assert tables.nodes_table(read(SNAPSHOT)).rows == []
    nodes = {"3f": {"state": "draining", "host": "pi\n", "cpus": 4.0, "gpus": 0.5, "engines": ["glow/ray-0"]}, "40": {}}
    table = tables.nodes_table(read(SNAPSHOT | {"nodes": nodes}))
    assert table.rows == [["3f", "pi?", "draining", "4", "0.5", "glow/ray-0"], ["40", "-", "-", "-", "-", "-"]]


def test_engine_that_is_dialled_and_not_used_is_told_of() -> None:
    dialled = {"tcp://gpu:7801": "the daemon desk\n has it", "tcp://gpu:7802": ""}
    assert "the engine at tcp://gpu:7801 is not used: the daemon desk? has it" in tables.notices(
        read(SNAPSHOT | {"dialled": dialled})
    )
    assert not any("7802" in line for line in tables.notices(read(SNAPSHOT | {"dialled": dialled})))
    assert tables.notices(read(SNAPSHOT | {"dialled": 7})) == tables.notices(read(SNAPSHOT))


def test_voice_with_two_engines_has_a_row_for_each() -> None:
    table = tables.voices_table(read(SNAPSHOT))
    shown = [(row[0], row[1], row[2], row[4]) for row in table.rows if "twins" in row[0]]
    assert shown == [
        ("twins", "degraded", "2 engines", "3/8"),
        ("  twins/0", "ready", "cuda:0", "2/8"),
        ("  twins/1", "away", "-", "1/-"),
    ]
    assert row_of(table, "glow *")["<DEVICE"] == "cpu" and row_of(table, "old")["<DEVICE"] == "-"
    assert "  glow" not in [row[0] for row in table.rows], "one engine is the voice"
    assert max(map(len, tables.layout(tables.voices_table(read(SNAPSHOT), narrow=True))[2:])) <= 80
    snapshot = copy.deepcopy(SNAPSHOT)
    snapshot["streams"]["talk"] |= {"voice": "twins", "engine": "twins/1"}
    assert row_of(tables.streams_table(read(snapshot)), "talk")["<VOICE"] == "twins/1"
    snapshot["voices"]["twins"]["engines"]["twins/0"]["degraded"] = {"level": 1, "reason": "late"}
    assert tables.notices(read(snapshot))[1].startswith("twins/0 degraded for - s: level 1 of -")


def test_link_and_failures_of_an_engine_elsewhere_are_shown() -> None:
    snapshot = copy.deepcopy(SNAPSHOT)
    engines = snapshot["voices"]["twins"]["engines"]
    engines["twins/0"] |= {"link": {"trip_ms": 12.31, "jitter_ms": 103.25}, "failures": 2}
    for narrow in (False, True):
        table = tables.voices_table(read(snapshot), narrow)
        assert [row_of(table, name)["LINK"] for name in ("twins", "  twins/0", "  twins/1")] == ["-", "12.3/103", "-"]
    assert max(map(len, tables.layout(table)[2:])) <= 80
    assert "engine twins/0 has given up 2 of its streams in a row" in tables.notices(read(snapshot))
    del engines["twins/1"]
    assert row_of(tables.voices_table(read(snapshot)), "twins")["LINK"] == "12.3/103", "its only engine"


def test_machine_and_placement_of_an_engine_are_shown() -> None:
    snapshot = copy.deepcopy(SNAPSHOT)
    engines = snapshot["voices"]["twins"]["engines"]
    engines["twins/0"] |= {"host": "far", "placement": "cordoned"}
    engines["twins/1"] |= {"ready": True, "placement": "open"}
    table = tables.voices_table(read(snapshot))
    assert row_of(table, "  twins/0")["<DEVICE"] == "cuda:0 on far"
    assert [row_of(table, name)["<STATE"] for name in ("twins", "  twins/0", "  twins/1")] == [
        "ready",
        "cordoned",
        "ready",
    ]
    del engines["twins/1"]
    assert row_of(tables.voices_table(read(snapshot)), "twins")["<STATE"] == "cordoned", "nothing takes new streams"


def test_voice_that_is_not_ready_is_shown_with_the_reason() -> None:
    assert tables.notices(read(SNAPSHOT)) == ["engine twins/1 is away"]
    snapshot = copy.deepcopy(SNAPSHOT)
    snapshot["voices"]["old"] |= {"ready": False, "state": "away", "reason": "no home for its\n cache"}
    snapshot["voices"]["twins"]["ready"] = False
    snapshot["voices"]["twins"]["state"] = "loading"
    assert tables.notices(read(snapshot)) == ["voice old is away: no home for its? cache", "voice twins is loading"]
    shown = {row[0]: row[1] for row in tables.voices_table(read(snapshot)).rows}
    assert (shown["old"], shown["twins"]) == ("away", "loading")
    assert "voice old is away: no home" in tables.as_text(read(snapshot))


def test_unmeasured_figures_are_dashes() -> None:
    row = row_of(tables.streams_table(read(SNAPSHOT)), "new")
    absent = ("TTFA", "RTF", "QUEUE", "CREDIT", "BEHIND", "XRUN")
    assert [row[column] for column in absent] == ["-", "-", "-", "-", "-", "-/-/-"]
    assert set(row_of(tables.stages_table(read(SNAPSHOT)), "new").values()) == {"new", "-"}
    voice = row_of(tables.voices_table(read(SNAPSHOT)), "old")
    assert [voice[column] for column in ("OPEN", "LATE %", "LEVEL")] == ["-/-", "-", "-"]


def test_overloaded_voice_is_reported_with_the_reason() -> None:
    snapshot = copy.deepcopy(SNAPSHOT)
    del snapshot["voices"]["twins"]
    assert tables.notices(read(snapshot)) == []
    degraded = {
        "level": 3, "last_level": 3, "chunk_frames": 16, "refuses": True, "since_ns": 2_000_000_000,
        "reason": "62% of the chunks of 1 s were late, by up to 130 ms",
    }  # fmt: skip
    for shown in (snapshot["voices"]["glow"], snapshot["voices"]["glow"]["engines"]["glow"]):
        shown |= {"level": 3, "degraded": degraded}
    assert row_of(tables.voices_table(read(snapshot)), "glow *")["<STATE"] == "degraded"
    assert tables.as_text(read(snapshot)).splitlines()[1] == (
        "glow degraded for 3 s: level 3 of 3, chunks of 16 frames, new streams refused "
        "(62% of the chunks of 1 s were late, by up to 130 ms)"
    )


def test_measured_zero_is_a_zero() -> None:
    assert tables.cell(0) == "0" and tables.cell(0.0, ".1f") == "0.0" and tables.cell(None, ".1f") == "-"


def test_text_has_a_headline_and_aligned_columns() -> None:
    text = tables.as_text(read(SNAPSHOT))
    assert text.startswith("glowd ready, up 12 s, 2 clients, 2 of 16 streams\n")
    header, row = next((a, b) for a, b in zip(text.splitlines(), text.splitlines()[2:]) if b.startswith("talk"))
    assert header.index("STATE") == row.index("playing") and header.index("RTF") + 3 == row.index("0.31") + 4


def test_control_characters_in_names_are_replaced() -> None:
    snapshot = copy.deepcopy(SNAPSHOT)
    snapshot["streams"]["\x1b[2Jx"] = {"client": "a\x07\nb"}
    text = tables.as_text(read(snapshot))
    assert "\x1b" not in text and "\x07" not in text and "?[2Jx" in text


@given(st.dictionaries(st.sampled_from(list(SNAPSHOT)), plain))
@example({"roles": {"\x1f\x1e": None, "\x1f\x1f": False}})
@settings(max_examples=150, deadline=None)
def test_any_map_can_be_shown(snapshot: dict[str, Any]) -> None:
    assert "glowd" in tables.as_text(read(snapshot))


def test_titles_fit_a_narrow_terminal() -> None:
    found = tables.tables(read(SNAPSHOT), narrow=True)
    assert max(len(table.title) for table in found) <= 80


def test_table_of_a_cluster_is_shown_only_with_one() -> None:
    snapshot = copy.deepcopy(SNAPSHOT) | {"nodes": {}}
    assert "nodes of the cluster" not in [table.title for table in tables.tables(read(snapshot))]


def test_narrow_terminal_gets_fewer_columns() -> None:
    snapshot = {**SNAPSHOT, "streams": {"a-stream-with-a-name": SNAPSHOT["streams"]["talk"]}}
    table = tables.streams_table(read(snapshot), narrow=True)
    assert max(map(len, tables.layout(table))) <= 80
    assert row_of(table, "a-stream-with-a-name")["RTF"] == "0.31"


def test_specification_names_every_figure() -> None:
    words = (Path(wire.__file__).parents[1] / "PROTOCOL.md").read_text().split("## Telemetry")[1].split("## Error")[0]
    stream = SNAPSHOT["streams"]["talk"]
    keys = [*SNAPSHOT, *stream, *stream["underruns"], *STAGE, *wire.STAGES, *SNAPSHOT["voices"]["glow"], "device"]
    assert [key for key in keys if f"`{key}`" not in words] == []
