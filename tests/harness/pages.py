"""A page read strictly: its elements, its faults, and what it would fetch."""

import base64
from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """A page, read strictly: every element closes what it opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.problems: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        self.problems += [f"{tag} is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) < len(attrs):
            self.problems.append(f"{tag} has an attribute twice")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def requests(self) -> list[str]:
        """Addresses that a browser fetches from elsewhere when it shows the page; a link that one may follow is none."""
        sources = [a.get(key) or "" for tag, a in self.elements for key in ("src", "href", "srcset") if tag != "a"]
        return [address for address in sources if address and not address.startswith(("data:", "#"))]

    def policy(self) -> str:
        """Its content security policy."""
        return next(meta["content"] or "" for meta in self.all("meta") if meta.get("http-equiv"))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def content_of(url: str | None) -> bytes:
    assert url and url.startswith("data:")
    return base64.b64decode(url.partition(";base64,")[2], validate=True)
