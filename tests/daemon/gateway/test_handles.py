"""Engines and the speaker as the gateway knows them: there, silent, lost, and back in a new life."""

import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.handles import SILENT_NS, Engine, Speaker
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message
from tests.daemon.gateway.router_rig import by_wire, voice_info
from tests.daemon.gateway.session_rig import HOP, Rig

NOW_NS = 1_000_000_000_000
WAIT_S = 15
LOST_NS = WAIT_S * 1_000_000_000
INFO, LOAD = voice_info(), ipc.EngineLoad(streams=1, busy=0.5)


@pytest.fixture
def sent() -> list[Message]:
    return []


@pytest.fixture
def engine(sent: list[Message]) -> Engine:
    return Engine("glow", "glow", by_wire(sent), WAIT_S)


@pytest.fixture
def speaker(sent: list[Message]) -> Speaker:
    return Speaker(sent.append, True, WAIT_S)


def device(instance: int = 1) -> ipc.DeviceReady:
    return ipc.DeviceReady(name="card", rate_hz=48_000, latency_ms=20, instance=instance)


def gone(instance: int = 1) -> ipc.DeviceGone:
    return ipc.DeviceGone(text="it was unplugged", instance=instance)


def errors(rig: Rig) -> list[Code]:
    return [Code(error.code) for error in rig.said(wire.Error)]


# --------------------------------------------------------------------- engines


def test_an_engine_is_there_while_it_is_heard_of(engine: Engine) -> None:
    assert not engine.there(NOW_NS)
    engine.handle(ipc.Ready("glow", INFO, 1, "cuda:1", 2), NOW_NS)
    assert engine.info == INFO and (engine.device, engine.threads) == ("cuda:1", 2)
    assert engine.there(NOW_NS + SILENT_NS - 1) and not engine.there(NOW_NS + SILENT_NS)
    engine.handle(ipc.Load(LOAD), NOW_NS + SILENT_NS)
    assert engine.there(NOW_NS + SILENT_NS) and engine.load == LOAD
    engine.handle(ipc.Ready("glow", INFO, 2), NOW_NS + SILENT_NS)
    assert engine.load is None, "what its former life did says nothing about this one"


def test_an_engine_that_cannot_be_told_anything_is_gone_until_it_says_something() -> None:
    reached = True
    engine = Engine("glow", "glow", lambda message: reached, WAIT_S)
    engine.handle(ipc.Ready("glow", INFO, 1), NOW_NS)
    engine.send(ipc.Drop(1))
    assert engine.there(NOW_NS)
    reached = False
    engine.send(ipc.Drop(2))
    assert not engine.there(NOW_NS), "its process is dead; nobody need wait until its silence shows it"
    engine.heard(NOW_NS)
    assert engine.there(NOW_NS)


def test_each_life_of_an_engine_is_given_the_streams_once(engine: Engine, sent: list[Message]) -> None:
    rig = Rig("null")
    rig.send(4)
    engine.streams["s"] = rig.session
    for instance, starts in ((1, 2), (1, 2), (2, 3)):
        engine.handle(ipc.Ready("glow", INFO, instance), NOW_NS)
        assert len(rig.said(ipc.Start, rig.engine)) == starts
    assert sent == [ipc.DropAll(), ipc.DropAll()], "what it did for a gateway before this one is dropped first"


def test_streams_wait_for_their_engine_and_not_for_ever(engine: Engine) -> None:
    speaking, silent = Rig("null"), Rig("null")
    speaking.send(4)
    engine.streams |= {"speaking": speaking.session, "silent": silent.session}
    engine.handle(ipc.Ready("glow", INFO, 1), NOW_NS)
    engine.tick(NOW_NS + LOST_NS)
    assert errors(speaking) == []
    engine.tick(NOW_NS + LOST_NS + 1)
    engine.tick(NOW_NS + LOST_NS + 2)
    assert errors(speaking) == [Code.ENGINE_LOST] and errors(silent) == []
    ending = speaking.ending
    assert isinstance(ending, wire.Error) and "voice glow" in ending.text


def test_an_engine_that_renders_whole_utterances_may_be_silent_for_as_long_as_a_call_takes() -> None:
    reached = True
    engine = Engine("slow", "slow", lambda message: reached, WAIT_S)
    rig = Rig("null")
    rig.send(4)
    engine.streams["s"] = rig.session
    engine.handle(ipc.Ready("slow", voice_info("slow", whole_utterance=True), 1), NOW_NS)
    engine.tick(NOW_NS + 2 * LOST_NS)
    assert engine.there(NOW_NS + 2 * LOST_NS) and errors(rig) == []
    reached = False
    engine.send(ipc.Drop(1))  # only its process's end ends that
    assert not engine.there(NOW_NS + 2 * LOST_NS)
    engine.tick(NOW_NS + 2 * LOST_NS)
    assert errors(rig) == [Code.ENGINE_LOST]


def test_a_gateway_that_has_just_started_gives_nobody_up(engine: Engine, speaker: Speaker) -> None:
    rig = Rig("device")
    rig.send(4)
    engine.streams["s"] = rig.session
    engine.tick(NOW_NS)
    speaker.tick([rig.session], NOW_NS)
    assert errors(rig) == []


# --------------------------------------------------------------------- speaker


def test_a_stream_needs_a_device_that_is_there_now(speaker: Speaker) -> None:
    def refusal(now_ns: int) -> str:
        with pytest.raises(WireError) as caught:
            speaker.require(now_ns)
        assert caught.value.code is Code.SINK_UNAVAILABLE and not speaker.there(now_ns)
        return caught.value.text

    assert refusal(NOW_NS) == "no sound device: the speaker has not started yet"
    speaker.handle(gone(), [], NOW_NS)
    assert refusal(NOW_NS) == "no sound device: it was unplugged"
    speaker.handle(device(), [], NOW_NS)
    speaker.require(NOW_NS + SILENT_NS - 1)
    assert speaker.there(NOW_NS + SILENT_NS - 1)
    assert refusal(NOW_NS + SILENT_NS + 1).endswith("the speaker process is restarting; try again")


def test_a_speaker_that_is_switched_off_says_where() -> None:
    with pytest.raises(WireError, match=r"\[speaker\] enabled is false"):
        Speaker(list[Message]().append, False, WAIT_S).require(NOW_NS)


def test_a_device_that_comes_back_in_the_same_process_goes_on_by_itself(speaker: Speaker, sent: list[Message]) -> None:
    rig = Rig("device")
    rig.send(4)
    for message in (device(), gone(), device(), gone(), device()):
        speaker.handle(message, [rig.session], NOW_NS)
    assert len(rig.said(ipc.Attach, rig.speaker)) == 2, "at the stream's beginning, and when the process was first met"
    assert sent == [ipc.DetachAll()]


@pytest.mark.parametrize("first_word", [device(2), gone(2)])
def test_a_new_speaker_process_is_given_the_streams(speaker: Speaker, sent: list[Message], first_word: Message) -> None:
    rig = Rig("device")
    speaker.handle(device(1), [rig.session], NOW_NS)
    rig.send(4)
    rig.render(4)
    rig.play(HOP)
    speaker.handle(first_word, [rig.session], NOW_NS)
    assert [attach.first_sample for attach in rig.said(ipc.Attach, rig.speaker)] == [0, HOP]
    assert sent == [ipc.DetachAll(), ipc.DetachAll()]


def test_streams_wait_for_their_device_and_not_for_ever(speaker: Speaker) -> None:
    loud, quiet = Rig("device"), Rig("socket")
    both = [loud.session, quiet.session]
    speaker.handle(device(), both, NOW_NS)
    for rig in (loud, quiet):
        rig.send(4)
    for later_ns in range(
        0, LOST_NS + 1, LOST_NS // 3
    ):  # it says so again and again, which does not start the clock anew
        speaker.handle(gone(), both, NOW_NS + later_ns)
        speaker.tick(both, NOW_NS + later_ns)
    assert errors(loud) == []
    speaker.tick(both, NOW_NS + LOST_NS + 1)
    assert errors(loud) == [Code.DEVICE_LOST] and errors(quiet) == []
    ending = loud.ending
    assert isinstance(ending, wire.Error) and "it was unplugged" in ending.text


def test_a_device_that_was_back_in_between_is_waited_for_again(speaker: Speaker) -> None:
    rig = Rig("device")
    rig.send(4)
    speaker.handle(gone(), [rig.session], NOW_NS)
    speaker.handle(device(), [rig.session], NOW_NS + LOST_NS - 2)
    speaker.handle(gone(), [rig.session], NOW_NS + LOST_NS - 1)
    speaker.tick([rig.session], NOW_NS + 2 * LOST_NS - 2)
    assert errors(rig) == []


def test_a_speaker_process_that_stays_away_is_lost_too(speaker: Speaker) -> None:
    rig = Rig("device")
    speaker.handle(device(), [rig.session], NOW_NS)
    rig.send(4)
    speaker.tick([rig.session], NOW_NS + LOST_NS + 1)
    assert errors(rig) == [Code.DEVICE_LOST]


def test_a_device_that_is_lost_while_it_fades_has_been_flushed(speaker: Speaker) -> None:
    rig = Rig("device")
    speaker.handle(device(), [rig.session], NOW_NS)
    rig.send(4)
    rig.render(3)
    rig.play(HOP)
    rig.flush()
    speaker.tick([rig.session], NOW_NS + LOST_NS + 1)
    assert rig.ending == wire.Flushed("s", 0, HOP - 1, 2 * HOP)


def test_a_stream_that_its_device_has_played_does_not_need_it_any_more(speaker: Speaker) -> None:
    rig = Rig("device", "socket")
    speaker.handle(device(), [rig.session], NOW_NS)
    rig.owner_reads = False
    rig.send(4)
    rig.end()
    rig.render(4, last=True)
    rig.played(4 * HOP)
    speaker.tick([rig.session], NOW_NS + LOST_NS + 1)
    rig.owner_reads = True
    rig.session.settle()
    assert rig.ending == wire.Played("s", 0, 4 * HOP, 0)
    assert len(rig.audio) == 4 * HOP
