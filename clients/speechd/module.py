"""The module's program: commands of speech-dispatcher in, replies and events out.

    sd_glowd [CONFIG]

Rules: one thread reads commands and answers them in order; messages speak in threads of their own (speaking.py). glowd plays
the audio itself, so speech-dispatcher's offer to play it is declined.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from glowd.clients.errors import GlowdError
from glowd.clients.speechd.protocol import Command, Lines
from glowd.clients.speechd.settings import ModuleSettings, Parameters, SettingsError, read_settings
from glowd.clients.speechd.speaking import Events, Speaker
from glowd.clients.speechd.texts import pieces
from glowd.clients.upstream import Upstream, UpstreamError, open_upstream

TAG = re.compile(r"[a-z]{2,3}")
SYNTAX = "302 ERROR BAD SYNTAX"
INVALID = "303 ERROR INVALID PARAMETER OR VALUE"
EVENTS = {"end": "702 END", "stop": "703 STOP", "pause": "704 PAUSE"}

log = logging.getLogger("glowd")


class Upstreams:
    """The upstream of the settings for its languages; espeak-ng for every other. Each is loaded once."""

    def __init__(self, settings: ModuleSettings) -> None:
        """Raises UpstreamError."""
        self._own = open_upstream(settings.tts, settings.tts_voice)
        self._languages = {primary(language) for language in settings.languages}
        self._others: dict[str, Upstream] = {}

    @property
    def name(self) -> str:
        """Of the upstream of the settings."""
        return self._own.name

    def of_language(self, language: str) -> Upstream:
        """The upstream for a language such as "en" or "de-AT". Raises UpstreamError."""
        if not TAG.fullmatch(primary(language)) or primary(language) in self._languages:  # "c" is no language
            return self._own
        if language not in self._others:
            self._others[language] = open_upstream("espeak-ng", language.lower())
        return self._others[language]


def primary(language: str) -> str:
    """The language of a tag: "en" of "en-US"."""
    return language.replace("_", "-").partition("-")[0].lower()


class Module:
    """The commands. Owner: the thread that reads them."""

    def __init__(self, lines: Lines, settings: ModuleSettings) -> None:
        self._lines, self._settings, self._parameters = lines, settings, Parameters()
        self._upstreams: Upstreams | None = None
        self._speaker = Speaker(settings, self._upstream_of)

    def run(self) -> int:
        """Answer commands until QUIT or the end of the input; the exit status."""
        for command in self._lines.commands():
            if command.name == "QUIT":
                break
            self._answer(command)
        self._speaker.close()
        self._lines.say("210 OK QUIT")
        return 0

    def _upstream_of(self, language: str) -> Upstream:
        assert self._upstreams is not None, "INIT comes first"
        return self._upstreams.of_language(language)

    def _answer(self, command: Command) -> None:
        actions: dict[str, Callable[[Command], None]] = {
            "INIT": self._init,
            "SPEAK": self._speak,
            "CHAR": self._speak,
            "KEY": self._speak,
            "SOUND_ICON": self._speak,
            "STOP": lambda _: self._speaker.stop("stop"),
            "PAUSE": lambda _: self._speaker.stop("pause"),
            "SET": self._set,
            "AUDIO": self._audio,
            "LOGLEVEL": lambda _: self._lines.say("203 OK LOGLEVEL SET"),
            "LIST": self._list_voices,
            "DEBUG": lambda command: self._lines.say(f"200 OK DEBUGGING {command.words[:3].strip()}"),
        }
        action = actions.get(command.name)
        if action is None:
            self._lines.say("300 ERR UNKNOWN COMMAND")
        else:
            action(command)

    def _init(self, _: Command) -> None:
        """Load the upstream, and find the daemon: without either, speech-dispatcher takes another module."""
        try:
            self._upstreams = Upstreams(self._settings)
            self._speaker.connect()
        except (UpstreamError, GlowdError) as error:
            log.error("%s", error)
            self._lines.say(f"399-{' '.join(str(error).split())}", "399 ERR CANT INIT MODULE")
        else:
            self._lines.say(f"299-glowd, texts by {self._upstreams.name}", "299 OK LOADED SUCCESSFULLY")

    def _speak(self, command: Command) -> None:
        texts = pieces(command, self._parameters)
        try:
            if not texts:
                raise ValueError("there is nothing to say")
            self._speaker.connect()
        except (GlowdError, ValueError) as error:
            log.warning("cannot speak: %s", error)
            self._lines.say("301 ERROR CANT SPEAK")
            return
        self._lines.say("200 OK SPEAKING")
        parameters = self._parameters
        self._speaker.speak(
            texts, parameters.language, parameters.manner, parameters.gain_db,
            Events(
                begin=lambda: self._lines.say("701 BEGIN"),
                mark=lambda name: self._lines.say(f"700-{' '.join(name.split())}", "700 INDEX MARK"),
                end=lambda how: self._lines.say(EVENTS[how]),
            ),
        )  # fmt: skip

    def _set(self, command: Command) -> None:
        try:
            settings = command.settings()
        except ValueError:
            self._lines.say(SYNTAX)
            return
        try:
            self._parameters = self._parameters.with_settings(settings)
        except ValueError as error:
            log.warning("%s", error)
            self._lines.say(INVALID)
        else:
            self._lines.say("203 OK SETTINGS RECEIVED")

    def _audio(self, command: Command) -> None:
        """Decline to send the audio to speech-dispatcher; any other method means that the module plays it."""
        declined = "audio_output_method=server" in command.data
        self._lines.say(INVALID if declined else "203 OK AUDIO INITIALIZED")

    def _list_voices(self, command: Command) -> None:
        _, _, asked = command.words.partition(" ")
        language = asked.split()[0] if asked.split() else ""
        known = [one for one in self._settings.languages if not language or primary(one) == primary(language)]
        name = self._settings.tts_voice or (self._upstreams.name if self._upstreams else "glowd")
        voices = [f"200-{' '.join(name.split())}\t{one}\tnone" for one in known]
        self._lines.say(*voices, "200 OK VOICE LIST SENT" if voices else "304 CANT LIST VOICES")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the module; its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.WARNING, format="sd_glowd: %(message)s", stream=sys.stderr)
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not mix with the protocol
    try:
        settings = read_settings(Path(arguments[0]) if arguments else None)
    except SettingsError as error:
        log.error("%s", error)
        outgoing.write(f"399-{error}\n399 ERR CANT INIT MODULE\n".encode())
        outgoing.flush()
        return 1
    return Module(Lines(sys.stdin.buffer, outgoing), settings).run()
