"""Names and values from files and peers, made fit for a terminal and a log.

Rules: standard library only. What a terminal would act on, such as an escape sequence or the end of a line, becomes visible.
"""

LONGEST = 80
"""Characters of a name that a message quotes."""


def escaped(text: str) -> str:
    """`text` as one line: control, format and line-separating characters become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable(value: object, longest: int = LONGEST) -> str:
    """A value as a short line; the middle of a long one is left out."""
    text = str(value)
    if len(text) > longest:
        half = longest // 2 - 2
        text = f"{text[:half]} ... {text[-half:]}"
    return escaped(text)
