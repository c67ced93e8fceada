"""What is said for a message: a text, a character, a key or the name of a sound.

Rules: values only. speech-dispatcher has replaced symbols by words before (SymbolsPreproc); what is left gets a name here.
"""

import unicodedata

from glowd.clients.speechd.protocol import Command
from glowd.clients.speechd.settings import Parameters
from glowd.clients.upstream.ssml import Piece, marked_pieces, plain_text

NAMES = {
    " ": "space", "\t": "tab", "\n": "new line", ".": "dot", ",": "comma", ";": "semicolon", ":": "colon", "!": "exclamation",
    "?": "question", "-": "dash", "_": "underline", "(": "left paren", ")": "right paren", "[": "left bracket",
    "]": "right bracket", "{": "left brace", "}": "right brace", "<": "less", ">": "greater", "/": "slash",
    "\\": "backslash", "'": "apostrophe", '"': "quote", "`": "grave", "@": "at", "#": "number", "$": "dollar",
    "%": "percent", "^": "caret", "&": "and", "*": "star", "+": "plus", "=": "equals", "|": "bar", "~": "tilde",
}  # fmt: skip
KEYS = {"kp": "keypad", "ctrl": "control"}


def pieces(command: Command, parameters: Parameters) -> list[Piece]:
    """The texts for a command SPEAK, CHAR, KEY or SOUND_ICON, with the marks after them; none if there is nothing to say."""
    if (
        command.name == "SPEAK"
        and not parameters.spelling
        and len(marked := marked_pieces("\n".join(command.data))) > 1
    ):
        return marked
    text = said(command, parameters)
    return [Piece(text)] if text.strip() else []


def said(command: Command, parameters: Parameters) -> str:
    """The text for a command, without its marks; "" if there is nothing to say."""
    text = "\n".join(command.data)
    match command.name:
        case "CHAR":
            return character(" " if text == "space" else text, parameters)
        case "KEY":
            return key(text, parameters)
        case "SOUND_ICON":
            return " ".join(text.replace("-", " ").replace("_", " ").split())
    plain = plain_text(text)
    if parameters.spelling:
        return ", ".join(character(letter, parameters) for letter in plain)
    return character(plain, parameters) if len(plain) == 1 else plain


def character(text: str, parameters: Parameters) -> str:
    """The name of a character; a longer text is said as it is."""
    if len(text) != 1:
        return text
    if text in NAMES:
        return NAMES[text]
    if text.isalnum():
        return f"capital {text.lower()}" if text.isupper() and parameters.says_capitals else text
    return unicodedata.name(text, "unknown character").lower()


def key(text: str, parameters: Parameters) -> str:
    """The name of a key: control_a, KP_Enter, underscore, a."""
    parts = [part for part in text.split("_") if part] or [text]
    return " ".join(KEYS.get(part.lower(), character(part, parameters)) for part in parts)
