"""What each sink counts as delivered, and what it does if it cannot deliver."""

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.streams.sinks import AudioChunk, DeviceSink, SocketSink
from glowd.daemon.wire.fields import Message
from tests.harness.session import ramp


def chunk(first: int, samples: int, last: bool = False) -> AudioChunk:
    return AudioChunk(first, ramp(first, samples), last)


def test_socket_sink_loses_nothing() -> None:
    took: list[wire.Audio] = []
    reads = True

    def try_send(offered: wire.Audio) -> bool:
        if reads:
            took.append(offered)
        return reads

    sink = SocketSink(lambda offered, seq: offered.message("s", 0, 22_050, seq), try_send)
    sink.write(chunk(0, 10))
    reads = False
    sink.write(chunk(10, 10))
    sink.write(chunk(20, 10, last=True))
    assert (sink.delivered_samples, sink.finished) == (10, False)
    reads = True
    sink.pump()
    assert (sink.delivered_samples, sink.finished) == (30, True)
    assert [(offered.seq, offered.first_sample) for offered in took] == [(0, 0), (1, 10), (2, 20)]


ATTACH = ipc.Attach(7, 1000, -3.0, 8)


def played(samples: int) -> ipc.Position:
    return ipc.Position(7, samples, 10**9 + samples)


def device() -> tuple[DeviceSink, list[Message]]:
    said: list[Message] = []
    return DeviceSink(said.append, ATTACH), said


def test_device_sink_keeps_what_was_not_played() -> None:
    sink, said = device()
    for at in (0, 10, 20):
        sink.write(chunk(at, 10))
    sink.position(played(12))
    assert sink.delivered_samples == 12
    sink.position(played(11))
    assert sink.delivered_samples == 12, "an older position changes nothing"
    said.clear()
    sink.attach()
    attach, *chunks = said
    assert attach == ipc.Attach(7, 1000, -3.0, 8, 12, 10**9 + 11)
    again = [message for message in chunks if isinstance(message, ipc.Pcm)]
    assert [(message.first_sample, message.samples) for message in again] == [(12, 8), (20, 10)]


def test_pause_before_a_restart_is_no_gap() -> None:
    sink, said = device()
    sink.write(chunk(0, 10))
    sink.position(played(5))
    sink.pause(True)
    sink.pause(False)
    said.clear()
    sink.attach()
    assert said[0] == ipc.Attach(7, 1000, -3.0, 8, 5)


def test_last_chunk_is_sent_again_to_restarted_speaker() -> None:
    """The speaker may have mixed all samples and be lost before it reports that they were played."""
    sink, said = device()
    sink.write(chunk(0, 10, last=True))
    sink.position(played(10))
    said.clear()
    sink.attach()
    last = said[-1]
    assert isinstance(last, ipc.Pcm) and (last.first_sample, last.samples, last.last) == (10, 0, True)
    sink.played(10)
    assert sink.finished


def test_finished_device_sink_is_not_detached() -> None:
    playing, said = device()
    playing.close()
    assert said[-1] == ipc.Detach(7)
    done, said = device()
    done.played(0)
    done.close()
    assert not any(isinstance(message, ipc.Detach) for message in said)
