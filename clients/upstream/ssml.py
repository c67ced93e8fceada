"""SSML -> the text that it says.

Rules: standard library only. Marks, voices and prosody are left out; what is no well-formed SSML is a plain text.
"""

import re
import xml.etree.ElementTree as ET

PAUSES = ("p", "s", "break")
"""Elements at which a sentence ends."""
DECLARATION = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


def plain_text(ssml: str) -> str:
    """The text between the tags; a text without tags as it is."""
    if DECLARATION.search(ssml):  # entities of its own could grow without bound
        return without_tags(ssml)
    try:
        root = ET.fromstring(ssml)
    except ET.ParseError:
        return without_tags(ssml)
    return " ".join("".join(texts_of(root)).split())


def texts_of(element: ET.Element) -> list[str]:
    """The texts in an element, in order."""
    name = element.tag.rpartition("}")[2].lower()
    alias = element.get("alias") if name == "sub" else None
    texts = [alias] if alias else [element.text or ""]
    for child in element:
        texts += [*([] if alias else texts_of(child)), *([] if alias else [child.tail or ""])]
    return [*texts, " "] if name in PAUSES else texts


def without_tags(text: str) -> str:
    """The text with everything taken out that looks like a tag."""
    return re.sub(r"</?[A-Za-z!?][^>]*>", " ", text)
