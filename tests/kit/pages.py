"""A page as a parser sees it: elements, attributes, text; what it would load from elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

VOID = {"meta", "input", "br", "hr", "link", "img"}
LOADS = {"src", "srcset", "href", "action", "formaction", "data", "poster", "background", "xlink:href", "ping"}


class Element(NamedTuple):
    tag: str
    attributes: dict[str, str]
    text: str
    """All text inside it."""


class Page(HTMLParser):
    """Parses at once; AssertionError if a tag is closed that is not open, or left open."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(source)
        self.close()
        assert not self._open, f"left open: {[tag for tag, _, _ in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag in VOID:
            self.elements.append(Element(tag, attributes, ""))
        else:
            self._open.append((tag, attributes, []))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        name, attributes, pieces = self._open.pop()
        assert name == tag, f"</{tag}> closes <{name}>"
        text = "".join(pieces)
        self.elements.append(Element(tag, attributes, text))
        if self._open:
            self._open[-1][2].append(text)

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1][2].append(data)

    def all(self, tag: str, class_: str = "") -> Iterator[Element]:
        """Every element of a tag, in the order in which they end; of a class, if one is given."""
        for element in self.elements:
            if element.tag == tag and (not class_ or class_ in element.attributes.get("class", "").split()):
                yield element

    def from_elsewhere(self) -> list[str]:
        """What the page would load or lead to: every address but those inside the page."""
        found = [
            value
            for element in self.elements
            for name, value in element.attributes.items()
            if name in LOADS and not value.startswith(("#", "data:"))
        ]
        styles = "".join(element.text for element in self.all("style"))
        return found + [part for part in ("url(", "@import", "expression(") if part in styles]
