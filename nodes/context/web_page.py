"""Web page: the text of a page, as a person would read it."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from nodes.base import Context, Effect, Example, Family, HttpReply, Label, Node, NodeError, Out, PortInfo, Text
from nodes.calls import checked_address, failure, final_address, literal_host, written_address
from nodes.compiling import Writer, led, literal, mapping, stiff
from nodes.page import Page, charset_of, read_page, tidy
from nodes.shape import TEXT, Shape, list_of, record

_MOST_READ = 2_000_000
_BIG = 100_000


class Read(Out):
    """What the page says."""

    text: str
    title: str
    links: Annotated[list[Any], PortInfo(help="The links of the page as records with text and url.")]
    url: Annotated[str, PortInfo(help="The address it was found at in the end.")]


class WebPage(Node):
    """Fetches a web page and gives its text, without menus of code and style.

    Useful before asking a model about a page. What a page says is not to be trusted: somebody else wrote it. Pages that
    only appear by running scripts may come back empty.
    """

    family, title, icon, effect = Family.CONTEXT, "Web page", "article", Effect.E1
    words = ("fetch", "read", "site", "scrape", "html", "text", "url", "article", "browse")
    examples = (
        Example(
            "Read an article",
            {"url": "https://example.com/news"},
            {"value": None},
            {
                "text": "News\n\nBread is 5 € now.\n\n- All news",
                "title": "The news",
                "links": [{"text": "All news", "url": "https://example.com/all"}],
                "url": "https://example.com/news",
            },
            given={
                "http": {
                    "https://example.com/news": {
                        "status": 200,
                        "headers": {"content-type": "text/html; charset=utf-8"},
                        "body": "<html><head><title>The news</title><style>p{}</style></head><body><h1>News</h1>"
                        "<p>Bread is\n5&nbsp;&euro; now.</p><ul><li><a href='/all'>All <b>news</b></a></ul></body></html>",
                    }
                }
            },
        ),
        Example(
            "Only the beginning of a plain text",
            {"url": "https://example.com/{{ name }}.txt", "longest": 11},
            {"value": {"name": "robots"}},
            {"text": "Hello world", "title": "", "links": [], "url": "https://example.com/robots.txt"},
            given={"http": {"https://example.com/robots.txt": "Hello world, and all the rest of it."}},
        ),
    )

    url: Text = Field(
        min_length=1,
        max_length=4_000,
        title="Address",
        description="The address of the page, with `{{ … }}` for what arrived.",
        json_schema_extra={"placeholder": "https://example.com/news"},
    )
    longest: int = Field(
        default=50_000, ge=1, le=500_000, title="At most", description="How many characters of text to keep."
    )
    timeout: float = Field(
        default=30.0, ge=1, le=300, title="Wait at most", description="Seconds to wait for the page."
    )

    @model_validator(mode="after")
    def _is_address(self) -> "WebPage":
        if "{{" not in self.url:
            checked_address(self.url)
        return self

    async def run(self, ctx: Context, value: Any = None) -> Read:
        url = final_address(ctx, self.url)
        headers = {"Accept": "text/html, application/xhtml+xml, text/plain;q=0.9"}
        reply = await ctx.http.request("GET", url, headers=headers, timeout=self.timeout)
        if not 200 <= reply.status < 300:
            raise failure(reply)
        text, is_page = _text_of(reply)
        if is_page:
            page = (
                await asyncio.to_thread(read_page, text, reply.url) if len(text) > _BIG else read_page(text, reply.url)
            )
        else:
            page = Page(text=tidy(text))
        if len(page.text) > self.longest:
            ctx.log(f"Kept {self.longest:,} of {len(page.text):,} characters.")
        return Read(page.text[: self.longest], page.title, page.links, reply.url)

    def as_python(self, w: Writer) -> None:
        w.let("url", written_address(w, self.url))
        accepted = mapping([("Accept", literal("text/html, application/xhtml+xml, text/plain;q=0.9"))])
        settings = (led("headers=", accepted), led("timeout=", literal(self.timeout)))
        w.let("reply", w.world("http.request", '"GET"', "url", *settings))
        with w.when("not 200 <= reply.status < 300"):
            w.line(w.use(failure, "reply"), "raise ")
        w.let("text, is_page", w.use(_text_of, "reply"))
        plain = w.use(Page, led("text=", w.use(tidy, "text")))
        w.let("page", stiff(f"{w.use(read_page, 'text', 'reply.url')} if is_page else {plain}", 2))
        w.gives(text=f"page.text[:{self.longest}]", title="page.title", links="page.links", url="reply.url")

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.UNTRUSTED})

    def hosts(self) -> tuple[str, ...]:
        return (literal_host(self.url),)

    def forecast_seconds(self) -> float:
        return 1.0

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return {"links": list_of(record({"text": TEXT, "url": TEXT}))}

    def describe(self) -> str:
        return self.url.removeprefix("https://")[:200]


def _text_of(reply: HttpReply) -> tuple[str, bool]:
    """What was sent as text, and whether it is a page made for browsers. Raises NodeError for anything else."""
    kind = reply.headers.get("content-type", "").lower()
    if kind and not any(word in kind for word in ("html", "text/", "xml", "json")):
        raise NodeError(
            f"{urlsplit(reply.url).hostname} did not send a page to read, but {kind.partition(';')[0][:60]}.",
            category="remote",
            fix="Use the address of a page.",
        )
    text = reply.text
    if "charset" not in kind and (named := charset_of(reply.content)):
        with contextlib.suppress(LookupError):
            text = reply.content.decode(named, "replace")
    text = text[:_MOST_READ]
    return text, "html" in kind or (not kind and "<" in text[:1000])
