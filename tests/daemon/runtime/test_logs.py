"""Log lines: one printable line for each record."""

from glowd.flow.recognition.printable import escaped


def test_escape_line_keeps_any_language() -> None:
    assert escaped("Grüße 你好") == "Grüße 你好"


def test_escape_line_escapes_control_and_format_characters() -> None:
    assert escaped("a\nb\x1b[2J\x9b\u2028\u202e") == r"a\nb\x1b[2J\x9b\u2028\u202e"
