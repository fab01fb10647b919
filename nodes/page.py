"""Turns a web page into readable text, with its title and its links."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urldefrag, urljoin

_HIDDEN: Final = frozenset({"script", "style", "noscript", "template", "svg", "iframe", "object", "select", "head"})
_BLOCKS: Final = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "br",
        "dd",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tr",
        "ul",
        "title",
    ]
)
_VOID: Final = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
)
_BODY: Final = frozenset(_BLOCKS - {"title", "br", "hr"})
_SPACES = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n[ \n]*\n ?| ?\n ?")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([A-Za-z0-9_-]{1,40})", re.IGNORECASE)
MOST_LINKS: Final = 500


@dataclass
class Page:
    """What a page says."""

    title: str = ""
    text: str = ""
    links: list[dict[str, str]] = field(default_factory=list)


def read_page(html: str, url: str) -> Page:
    """The readable part of a page. Never fails: what cannot be read is left out."""
    reader = _Reader(url)
    # In one piece and never closed: anything else reads broken pages again and again, in time that grows with their square.
    reader.feed(f"{html}\n<p>")
    return Page(_one_line("".join(reader.title))[:500], tidy("".join(reader.parts)), reader.links)


def charset_of(content: bytes) -> str | None:
    """The encoding that a page names in itself."""
    found = _CHARSET.search(content[:4096])
    return found.group(1).decode("ascii").lower() if found else None


def tidy(text: str) -> str:
    """A text without runs of spaces and with at most one blank line between paragraphs."""
    text = _SPACES.sub(" ", text)
    return _LINES.sub(lambda found: "\n\n" if found.group().count("\n") > 1 else "\n", text).strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Reader(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title: list[str] = []
        self.links: list[dict[str, str]] = []
        self._url = url
        self._hidden = ""
        self._depth = 0
        self._in_title = False
        self._link: tuple[str, int] | None = None
        self._seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title":
            self._in_title = not self.title
            return
        if tag in _BODY or tag == "body":
            # Content begins, whatever was left open in the head.
            self._in_title = False
            if self._hidden == "head":
                self._hidden = ""
        if tag in _HIDDEN and not self._hidden:
            self._hidden, self._depth = tag, 0
        if self._hidden:
            self._depth += tag == self._hidden
            return
        if tag in _BLOCKS:
            self.parts.append("\n" if tag in ("br", "li", "tr", "dd", "dt") else "\n\n")
        if tag == "li":
            self.parts.append("- ")
        elif tag in ("td", "th"):
            self.parts.append(" ")
        elif tag == "a":
            self._close_link()
            href = next((value for name, value in attrs if name == "href" and value), None)
            self._link = (href, len(self.parts)) if href else None
        elif tag == "base":
            self._url = self._absolute(next((value or "" for name, value in attrs if name == "href"), "")) or self._url

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif self._hidden:
            self._depth -= tag == self._hidden
            if not self._depth:
                self._hidden = ""
        elif tag == "a":
            self._close_link()
        elif tag in _BLOCKS:
            self.parts.append("\n" if tag in ("li", "tr", "dd", "dt") else "\n\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._hidden:
            # Line ends in the source mean nothing; only blocks make lines.
            self.parts.append(data.replace("\n", " "))

    def _close_link(self) -> None:
        if self._link is None:
            return
        href, start = self._link
        self._link = None
        address = self._absolute(href)
        if address and address not in self._seen and len(self.links) < MOST_LINKS:
            self._seen.add(address)
            self.links.append({"text": _one_line("".join(self.parts[start:]))[:300], "url": address})

    def _absolute(self, href: str) -> str:
        try:
            address = urldefrag(urljoin(self._url, href.strip()))[0]
        except ValueError:
            return ""
        return address if address.lower().startswith(("http://", "https://")) and len(address) <= 2_000 else ""
