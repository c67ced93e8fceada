"""The gateway takes over new settings; streams that are open keep what they have."""

from glowd.daemon import ipc
from glowd.daemon.config_reader import as_text, load
from glowd.daemon.gateway.reloading import Reloading
from glowd.daemon.reload_plan import plan_reload
from glowd.daemon.runtime.status import NewSettings
from glowd.daemon.wire import Code
from glowd.daemon.wire import messages as wire
from tests.harness.router import VOICES, RouterHarness, mel_message

OTHER = 'voices={glow={engine="waveglow",default=true,chunk_frames=8},slow={engine="griffinlim"}}'
MORE = (
    'voices={glow={engine="waveglow",chunk_frames=4},slow={engine="griffinlim"},more={engine="rtisi-la",default=true}}'
)
LESS = 'voices={slow={engine="griffinlim"}}'


class Reloaded(RouterHarness):
    """A router whose settings are reloaded, as the gateway's loop does it."""

    def __init__(self, *settings: str) -> None:
        super().__init__(*settings)
        self.config = load(None, [VOICES, *settings])
        self.applied: list[int] = []
        users = (self.router.use, self.snapshots.use, self.streams.use)
        self.reloading = Reloading(self.roster, users, self.applied.append)
        self.engine_ready("slow", whole_utterance=True)
        self.connect(b"a")

    def reload(self, voices: str, *settings: str, ready: tuple[str, ...] = ()) -> list[str]:
        """New settings arrive, and then engines; returns the engines that are released."""
        self.config = plan_reload(self.config, load(None, [voices, *settings])).config
        self.reloading.take(NewSettings(len(self.applied) + 1, as_text(self.config)))
        released = self.turn()
        for engine in ready:
            self.engine_ready(engine)
        return released + self.turn()

    def turn(self) -> list[str]:
        self.reloading.tick(self.now_ns)
        self.router.tick(self.now_ns)
        return self.roster.tick(self.now_ns)

    def engine_of(self, stream: str) -> str:
        found = self.streams.find(stream)
        assert found
        return found.engine.name


def test_limits_hold_for_streams_that_come() -> None:
    harness = Reloaded()
    harness.open(b"a", "one")
    harness.reload(VOICES, "server.max_streams=1", "files.directory=/elsewhere")
    assert harness.applied == [1] and harness.snapshots.take().max_streams == 1
    assert harness.refused(b"a", wire.Open("two"), fatal=True).code == Code.AT_CAPACITY
    assert str(harness.streams.recordings.directory) == "/elsewhere"
    harness.reload(VOICES, "server.max_streams=2")
    harness.open(b"a", "two")


def test_client_keeps_the_time_that_it_was_told() -> None:
    harness = Reloaded()
    harness.reload(VOICES, "server.idle_timeout_s=10")
    harness.connect(b"b")
    harness.now_ns += 11_000_000_000
    harness.turn()
    assert set(harness.router.clients) == {b"a"}


def test_added_voice_serves_once_its_engine_is_ready() -> None:
    harness = Reloaded()
    harness.reload(MORE)
    assert harness.applied == [] and harness.snapshots.take().state == "ready"
    assert harness.refused(b"a", wire.Open("early", voice="more"), fatal=True).code == Code.UNKNOWN_VOICE
    harness.engine_ready("more")
    harness.turn()
    assert harness.applied == [1]
    assert harness.open(b"a", "late").voice == "more", "it is the default now"
    (welcome,) = harness.send(b"a", wire.Hello("a"))
    assert isinstance(welcome, wire.Welcome)
    assert [voice["default"] for voice in welcome.voices] == [False, False, True]


def test_removed_voice_refuses_streams_and_open_ones_go_on() -> None:
    harness = Reloaded()
    harness.open(b"a", "talk")
    harness.send(b"a", mel_message("talk"))
    assert harness.reload(LESS) == [] and harness.applied == [1]
    error = harness.refused(b"a", wire.Open("new", voice="glow"), fatal=True)
    assert error.code == Code.UNKNOWN_VOICE and error.text == "there is no voice 'glow'; choose one of slow"
    before = len(harness.to_engine)
    harness.send(b"a", mel_message("talk", 1, 4))
    assert isinstance(harness.to_engine[before], ipc.Frames)
    harness.send(b"a", wire.Close("talk"))
    assert harness.turn() == ["glow"] and harness.turn() == []
    assert set(harness.engines) == {"slow"}


def test_voice_without_streams_is_released_at_once() -> None:
    assert Reloaded().reload(LESS) == ["glow"]


def test_changed_voice_gets_new_engines_for_new_streams() -> None:
    harness = Reloaded()
    harness.open(b"a", "old")
    assert harness.reload(OTHER, ready=("glow@1",)) == []
    harness.open(b"a", "new")
    assert (harness.engine_of("old"), harness.engine_of("new")) == ("glow", "glow@1")
    found = harness.snapshots.take()
    assert set(found.voices["glow"].engines) == {"glow@1"} and "engine:glow" in found.roles
    harness.send(b"a", wire.Close("old"))
    assert harness.turn() == ["glow"]


def test_stream_of_a_lost_old_engine_does_not_move_to_the_new() -> None:
    """Other settings would make other samples; it waits for its own engine to come back."""
    harness = Reloaded()
    harness.open(b"a", "old")
    harness.send(b"a", mel_message("old"))
    harness.reload(OTHER, ready=("glow@1",))
    harness.now_ns += 4_000_000_000
    harness.engine_ready("glow@1")
    harness.turn()
    assert harness.engine_of("old") == "glow"
    before = len(harness.to_engine)
    harness.engine_ready("glow")
    assert [type(message) for message in harness.to_engine[before:]] == [ipc.DropAll, ipc.Start, ipc.Frames]


def test_later_settings_replace_those_that_wait() -> None:
    harness = Reloaded()
    harness.reload(MORE)
    assert harness.reload(VOICES, "server.max_streams=4") == ["more"]
    assert harness.applied == [1] and set(harness.engines) == {"glow", "slow"}


def test_streams_of_old_engines_take_their_share() -> None:
    harness = Reloaded()
    assert [engine.name for engine in harness.roster._machine.engines] == ["glow", "slow"]
    harness.open(b"a", "old")
    harness.reload(OTHER, ready=("glow@1",))
    assert [engine.name for engine in harness.roster._machine.engines] == ["glow", "slow", "glow@1"]
