"""What speaks text: mel frames of a sentence as they are made, by espeak-ng, hibari, or a model that a user brings.

from glowd.clients.upstream import open_upstream

upstream = open_upstream("hibari")
for frames in upstream.speak("Hello there.", MelFormat()).frames: ...
"""

from glowd.clients.upstream.choose import open_upstream
from glowd.clients.upstream.interface import Manner, Speech, Upstream, UpstreamError
from glowd.clients.upstream.sentences import SentenceCutter, pieces_of_text
from glowd.clients.upstream.texts import SpokenText, numbered, speak_text
from glowd.clients.upstream.threads import in_thread

__all__ = [
    "Manner",
    "SentenceCutter",
    "Speech",
    "SpokenText",
    "Upstream",
    "UpstreamError",
    "in_thread",
    "numbered",
    "open_upstream",
    "pieces_of_text",
    "speak_text",
]
