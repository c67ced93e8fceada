"""Engines and the speaker as the gateway knows them: alive, silent, lost, restarted."""

import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.handles.engine import SILENT_NS, EngineHandle
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.runtime.status import RoleState
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message
from tests.harness.router import decoded_into, voice_info
from tests.harness.session import HOP, SessionHarness

NOW_NS = 1_000_000_000_000
WAIT_S = 15
LOST_NS = WAIT_S * 1_000_000_000
INFO, LOAD = voice_info(), ipc.EngineLoad(streams=1, busy=0.5)


@pytest.fixture
def sent() -> list[Message]:
    return []


@pytest.fixture
def engine(sent: list[Message]) -> EngineHandle:
    return EngineHandle("glow", "glow", decoded_into(sent), WAIT_S)


@pytest.fixture
def speaker(sent: list[Message]) -> SpeakerHandle:
    return SpeakerHandle(sent.append, True, WAIT_S)


def device(instance: int = 1) -> ipc.DeviceReady:
    return ipc.DeviceReady(name="card", rate_hz=48_000, latency_ms=20, instance=instance)


def gone(instance: int = 1) -> ipc.DeviceGone:
    return ipc.DeviceGone(text="it was unplugged", instance=instance)


def errors(harness: SessionHarness) -> list[Code]:
    return [Code(error.code) for error in harness.sent(wire.Error)]


# --------------------------------------------------------------------- engines


def test_engine_is_alive_while_it_sends(engine: EngineHandle) -> None:
    assert not engine.is_alive(NOW_NS)
    engine.handle(ipc.Ready("glow", INFO, 1, "cuda:1", 2), [], NOW_NS)
    assert engine.info == INFO and (engine.device, engine.threads) == ("cuda:1", 2)
    assert engine.is_alive(NOW_NS + SILENT_NS - 1) and not engine.is_alive(NOW_NS + SILENT_NS)
    engine.handle(ipc.Load(LOAD), [], NOW_NS + SILENT_NS)
    assert engine.is_alive(NOW_NS + SILENT_NS) and engine.load == LOAD
    engine.handle(ipc.Ready("glow", INFO, 2), [], NOW_NS + SILENT_NS)
    assert engine.load is None, "the report of the process before it is past"


def test_ready_engine_that_new_gateway_has_not_heard_is_loading(engine: EngineHandle) -> None:
    engine.news = RoleState("engine:glow", "ready")
    assert (engine.state(NOW_NS), engine.reason(NOW_NS), engine.is_first_load) == ("loading", "", True)
    engine.handle(ipc.Ready("glow", INFO, 1), [], NOW_NS)
    assert engine.state(NOW_NS) == "ready"
    assert engine.state(NOW_NS + SILENT_NS) == "away"
    assert engine.reason(NOW_NS + SILENT_NS) == "it does not answer; it is restarted unless it does soon"


def test_unreachable_engine_is_not_alive_until_it_sends() -> None:
    reached = True
    engine = EngineHandle("glow", "glow", lambda message: reached, WAIT_S)
    engine.handle(ipc.Ready("glow", INFO, 1), [], NOW_NS)
    engine.send(ipc.Drop(1))
    assert engine.is_alive(NOW_NS)
    reached = False
    engine.send(ipc.Drop(2))
    assert not engine.is_alive(NOW_NS), "its process has ended; there is no need to wait for its silence"
    engine.seen(NOW_NS)
    assert engine.is_alive(NOW_NS)


def test_restarted_engine_gets_its_streams_once(engine: EngineHandle, sent: list[Message]) -> None:
    harness = SessionHarness("null")
    harness.send(4)
    for instance, starts in ((1, 2), (1, 2), (2, 3)):
        engine.handle(ipc.Ready("glow", INFO, instance), [harness.session], NOW_NS)
        assert len(harness.sent(ipc.Start, harness.ports.engine)) == starts
    assert sent == [ipc.DropAll(), ipc.DropAll()], "streams of a gateway before this one are dropped first"


def test_lost_engine_fails_its_streams_after_the_wait(engine: EngineHandle) -> None:
    speaking, idle = SessionHarness("null"), SessionHarness("null")
    both = [speaking.session, idle.session]
    speaking.send(4)
    engine.handle(ipc.Ready("glow", INFO, 1), both, NOW_NS)
    engine.tick(both, NOW_NS + LOST_NS)
    assert errors(speaking) == []
    engine.tick(both, NOW_NS + LOST_NS + 1)
    engine.tick(both, NOW_NS + LOST_NS + 2)
    assert errors(speaking) == [Code.ENGINE_LOST] and errors(idle) == []
    ending = speaking.ending
    assert isinstance(ending, wire.Error) and "voice glow" in ending.text


def test_whole_utterance_engine_may_be_silent() -> None:
    reached = True
    engine = EngineHandle("slow", "slow", lambda message: reached, WAIT_S)
    harness = SessionHarness("null")
    harness.send(4)
    engine.handle(ipc.Ready("slow", voice_info("slow", whole_utterance=True), 1), [harness.session], NOW_NS)
    engine.tick([harness.session], NOW_NS + 2 * LOST_NS)
    assert engine.is_alive(NOW_NS + 2 * LOST_NS) and errors(harness) == []
    reached = False
    engine.send(ipc.Drop(1))
    assert not engine.is_alive(NOW_NS + 2 * LOST_NS), "its process has ended"
    engine.tick([harness.session], NOW_NS + 2 * LOST_NS)
    assert errors(harness) == [Code.ENGINE_LOST]


def test_new_gateway_fails_no_stream(engine: EngineHandle, speaker: SpeakerHandle) -> None:
    harness = SessionHarness("device")
    harness.send(4)
    engine.tick([harness.session], NOW_NS)
    speaker.tick([harness.session], NOW_NS)
    assert errors(harness) == []


# --------------------------------------------------------------------- speaker


def test_require_without_device_says_why(speaker: SpeakerHandle) -> None:
    def refusal(now_ns: int) -> str:
        with pytest.raises(WireError) as caught:
            speaker.require(now_ns)
        assert caught.value.code is Code.SINK_UNAVAILABLE and not speaker.is_alive(now_ns)
        return caught.value.text

    assert refusal(NOW_NS) == "no sound device: the speaker has not started yet"
    speaker.handle(gone(), [], NOW_NS)
    assert refusal(NOW_NS) == "no sound device: it was unplugged"
    speaker.handle(device(), [], NOW_NS)
    speaker.require(NOW_NS + SILENT_NS - 1)
    assert speaker.is_alive(NOW_NS + SILENT_NS - 1)
    assert refusal(NOW_NS + SILENT_NS + 1).endswith("the speaker process is restarting; try again")


def test_disabled_speaker_names_the_setting() -> None:
    with pytest.raises(WireError, match=r"\[speaker\] enabled is false"):
        SpeakerHandle(list[Message]().append, False, WAIT_S).require(NOW_NS)


@pytest.mark.parametrize(("rates_hz", "preferred_hz"), [(set(), 0), ({24_000}, 24_000), ({16_000, 24_000}, 0)])
def test_speaker_is_told_the_rate_of_the_voices(rates_hz: set[int], preferred_hz: int) -> None:
    """Each time it reports, so that one that was restarted knows it, and one that waits for the voices learns it."""
    sent = list[Message]()
    speaker = SpeakerHandle(sent.append, True, WAIT_S, lambda: set(rates_hz))
    for _ in range(2):
        speaker.handle(ipc.Load(ipc.SpeakerLoad(limited_samples=0)), [], NOW_NS)
    assert sent == [ipc.OutputRate(preferred_hz)] * 2


def test_device_back_in_same_process_needs_no_attach(speaker: SpeakerHandle, sent: list[Message]) -> None:
    harness = SessionHarness("device")
    harness.send(4)
    for message in (device(), gone(), device(), gone(), device()):
        speaker.handle(message, [harness.session], NOW_NS)
    assert len(harness.sent(ipc.Attach, harness.ports.speaker)) == 2, (
        "at the stream's beginning, and when the process was first met"
    )
    assert sent == [ipc.DetachAll()]


@pytest.mark.parametrize("first_word", [device(2), gone(2)])
def test_restarted_speaker_gets_the_streams(speaker: SpeakerHandle, sent: list[Message], first_word: Message) -> None:
    harness = SessionHarness("device")
    speaker.handle(device(1), [harness.session], NOW_NS)
    harness.send(4)
    harness.render(4)
    harness.play(HOP)
    speaker.handle(first_word, [harness.session], NOW_NS)
    assert [attach.first_sample for attach in harness.sent(ipc.Attach, harness.ports.speaker)] == [0, HOP]
    assert sent == [ipc.DetachAll(), ipc.DetachAll()]


def test_lost_device_fails_its_streams_after_the_wait(speaker: SpeakerHandle) -> None:
    loud, quiet = SessionHarness("device"), SessionHarness("socket")
    both = [loud.session, quiet.session]
    speaker.handle(device(), both, NOW_NS)
    for harness in (loud, quiet):
        harness.send(4)
    for later_ns in range(0, LOST_NS + 1, LOST_NS // 3):  # repeated reports do not restart the wait
        speaker.handle(gone(), both, NOW_NS + later_ns)
        speaker.tick(both, NOW_NS + later_ns)
    assert errors(loud) == []
    speaker.tick(both, NOW_NS + LOST_NS + 1)
    assert errors(loud) == [Code.DEVICE_LOST] and errors(quiet) == []
    ending = loud.ending
    assert isinstance(ending, wire.Error) and "it was unplugged" in ending.text


def test_device_back_in_between_restarts_the_wait(speaker: SpeakerHandle) -> None:
    harness = SessionHarness("device")
    harness.send(4)
    speaker.handle(gone(), [harness.session], NOW_NS)
    speaker.handle(device(), [harness.session], NOW_NS + LOST_NS - 2)
    speaker.handle(gone(), [harness.session], NOW_NS + LOST_NS - 1)
    speaker.tick([harness.session], NOW_NS + 2 * LOST_NS - 2)
    assert errors(harness) == []


def test_silent_speaker_fails_its_streams_after_the_wait(speaker: SpeakerHandle) -> None:
    harness = SessionHarness("device")
    speaker.handle(device(), [harness.session], NOW_NS)
    harness.send(4)
    speaker.tick([harness.session], NOW_NS + LOST_NS + 1)
    assert errors(harness) == [Code.DEVICE_LOST]


def test_device_lost_while_fading_ends_the_flush(speaker: SpeakerHandle) -> None:
    harness = SessionHarness("device")
    speaker.handle(device(), [harness.session], NOW_NS)
    harness.send(4)
    harness.render(3)
    harness.play(HOP)
    harness.flush()
    speaker.tick([harness.session], NOW_NS + LOST_NS + 1)
    assert harness.ending == wire.Flushed("s", 0, HOP - 1, 2 * HOP)


def test_device_lost_after_playback_costs_nothing(speaker: SpeakerHandle) -> None:
    harness = SessionHarness("device", "socket")
    speaker.handle(device(), [harness.session], NOW_NS)
    harness.ports.owner_reads = False
    harness.send(4)
    harness.end()
    harness.render(4, last=True)
    harness.play_all(4 * HOP)
    speaker.tick([harness.session], NOW_NS + LOST_NS + 1)
    harness.ports.owner_reads = True
    harness.session.sinks.settle()
    assert harness.ending == wire.Played("s", 0, 4 * HOP, 0)
    assert len(harness.audio) == 4 * HOP
