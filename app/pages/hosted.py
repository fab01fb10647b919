"""Pages that agents host for anybody: forms at `/forms/{path}`, conversations at `/chat/{path}`; in test behind `test/`.

They are plain pages: no session, no socket, and a form works without any script. What an agent says is shown as text.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from html import escape
from typing import Annotated, Any
from urllib.parse import parse_qsl

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from app import plain
from app.permissions import TheFactory, visitor
from app.talk import MESSAGE, Talk, opened
from app.theme import asset_url
from app.visit import Visit
from nodes.answers import read_answers
from nodes.errors import FactoryError, TooMany
from nodes.listen import Chat, Form, FormField
from runtime.environments import TEST_PATH
from runtime.execution import Response as Answer
from runtime.triggers import Route

router = APIRouter(include_in_schema=False)

LIMIT = 256 * 1024
FIELDS = 200
_ONE = RateLimitItemPerMinute(20)
_ALL = RateLimitItemPerMinute(600)
# A hidden field that no question can be called; what is in it tells a page that is sent twice.
_ONCE = "af-once"
_MARK = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RADIOS = 5
_CHAT_POLICY = plain.POLICY + "; script-src 'self'; connect-src 'self'"
_INPUTS = {"text": "text", "number": "number", "date": "date", "e-mail": "email"}


class TooLarge(FactoryError):
    """More was typed than a hosted page takes."""

    code = "request.too_large"
    status = 413


class Desk:
    """What hosted pages share: how often anybody may send, and the key that marks conversations."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def admit(self, address: str, path: str) -> None:
        """Raise TooMany when somebody, or everybody together, sends too often."""
        if not (self._limiter.hit(_ONE, "one", address, path) and self._limiter.hit(_ALL, "all", path)):
            raise TooMany("That was a lot at once.", fix="Wait a minute, then send it again.")


def the_desk(request: Request) -> Desk:
    """The desk of this application."""
    state = request.app.state
    if not hasattr(state, "hosted"):
        state.hosted = Desk(state.settings.key("words"))
    desk: Desk = state.hosted
    return desk


TheDesk = Annotated[Desk, Depends(the_desk)]
Anybody = Annotated[None, visitor(limit=LIMIT)]


# --- forms ---------------------------------------------------------------------------------------------------------------


@router.get("/forms/{path}")
async def show_form(request: Request, path: str, factory: TheFactory, _: Anybody, sent: str = "") -> Response:
    """The form, or its thanks."""
    try:
        route = factory.hooks.find("form", path)
    except FactoryError as problem:
        return _refused(request, problem)
    listen = route.listen
    assert isinstance(listen, Form)
    if sent:
        return _thanks(request, listen, listen.thanks)
    return _form(request, listen, {}, {})


@router.post("/forms/{path}")
async def take_form(request: Request, path: str, factory: TheFactory, desk: TheDesk, _: Anybody) -> Response:
    """Check the answers, start a run, and say thanks or what the agent answers."""
    try:
        route = factory.hooks.find("form", path)
        listen = route.listen
        assert isinstance(listen, Form)
        given = await _fields(request)
        answers, problems = read_answers(listen.fields, given)
        if problems:
            return _form(request, listen, given, problems)
        desk.admit(Visit.of(request.scope).address, path)
        event, wait = {"answers": answers}, listen.respond != "now"
        content = orjson.dumps(answers)
        # Only what is the same in every word is a second click: whoever goes back and corrects an answer sends anew.
        once = given.get(_ONCE, "")
        key = f"{once} {hashlib.sha256(content).hexdigest()}" if _MARK.fullmatch(once) else ""
        answer = await factory.hooks.take(route, event, content, key=key, wait=wait)
        return _answered(request, listen, answer) if wait else RedirectResponse(f"/forms/{path}?sent=1", 303)
    except FactoryError as problem:
        return _refused(request, problem)


@router.get("/forms/test/{path}")
async def show_test_form(request: Request, path: str, factory: TheFactory, _: Anybody, sent: str = "") -> Response:
    """The form of a test deployment."""
    return await show_form(request, TEST_PATH + path, factory, None, sent)


@router.post("/forms/test/{path}")
async def take_test_form(request: Request, path: str, factory: TheFactory, desk: TheDesk, _: Anybody) -> Response:
    """The answers for a test deployment."""
    return await take_form(request, TEST_PATH + path, factory, desk, None)


def _form(request: Request, listen: Form, given: dict[str, str], problems: dict[str, str]) -> Response:
    intro = f'<p class="af-lead af-words">{escape(listen.intro)}</p>' if listen.intro else ""
    wrong = ""
    if problems:
        words = "One answer needs another look." if len(problems) == 1 else "Some answers need another look."
        wrong = f'<div class="af-note is-bad" role="alert"><span>{words} They are marked below.</span></div>'
    first = next(iter(problems), "")
    fields = "\n".join(
        _field(field, given.get(field.name, ""), problems.get(field.name, ""), focus=field.name == first)
        for field in listen.fields
    )
    once = escape(given.get(_ONCE, "")) or secrets.token_urlsafe(16)
    body = f"""{intro}<form class="af-form" method="post" novalidate>
<input type="hidden" name="{_ONCE}" value="{once}">
{wrong}
{fields}
<button class="af-button" type="submit">Send</button>
</form>"""
    return _page(request, listen.title, body, status=422 if problems else 200)


def _field(field: FormField, value: str, problem: str, *, focus: bool) -> str:
    name, id_ = escape(field.name), f"field-{escape(field.name)}"
    marks = f' aria-invalid="true" aria-describedby="{id_}-problem"' if problem else ""
    marks += ' aria-required="true"' if field.required and field.kind != "yes/no" else ""
    marks += " autofocus" if focus else ""
    help_ = f'<span class="af-hint">{escape(field.help)}</span>' if field.help else ""
    said = f'<span class="af-field-error" id="{id_}-problem" role="alert">{escape(problem)}</span>' if problem else ""
    label = escape(field.label)
    if not field.required and field.kind != "yes/no":
        label += ' <span class="af-hint">(optional)</span>'
    if field.kind == "yes/no":
        ticked = " checked" if value else ""
        return (
            f'<label class="af-tick"><input type="checkbox" name="{name}" value="yes"{ticked}{marks}>'
            f"<span>{label}{help_}{said}</span></label>"
        )
    if field.kind == "choice" and len(field.choices) <= _RADIOS:
        radios = "".join(
            f'<label class="af-tick"><input type="radio" name="{name}" value="{escape(choice)}"'
            f"{' checked' if value == choice else ''}><span>{escape(choice)}</span></label>"
            for choice in field.choices
        )
        return f"<fieldset{marks}><legend>{label}</legend>{radios}{help_}{said}</fieldset>"
    if field.kind == "choice":
        options = "".join(
            f'<option value="{escape(choice)}"{" selected" if value == choice else ""}>{escape(choice)}</option>'
            for choice in field.choices
        )
        entry = f'<select name="{name}"{marks}><option value="">Choose…</option>{options}</select>'
    elif field.kind == "long text":
        entry = f'<textarea name="{name}" rows="5"{marks}>\n{escape(value)}</textarea>'
    else:
        more = ' step="any" inputmode="decimal"' if field.kind == "number" else ""
        entry = f'<input name="{name}" type="{_INPUTS[field.kind]}" value="{escape(value)}"{more}{marks}>'
    return f"<label><span>{label}</span>{entry}{help_}{said}</label>"


def _answered(request: Request, listen: Form, answer: Answer) -> Response:
    if answer.status >= 500:
        words = "The agent could not finish. Nothing is left for you to do; try again later."
        return _page(request, listen.title, _note(words), status=answer.status)
    if answer.status == 202:
        return _thanks(request, listen, f"{listen.thanks}\nIt is still being worked on.")
    text = as_text(answer.body)
    return _thanks(request, listen, text or listen.thanks, heard=bool(text))


def _thanks(request: Request, listen: Form, words: str, *, heard: bool = False) -> Response:
    kind = "af-answer" if heard else "af-lead"
    again = '<p><a class="af-button is-quiet" href="?">Fill it in again</a></p>'
    return _page(request, listen.title, f'<p class="{kind} af-words" role="status">{escape(words)}</p>{again}')


# --- chats ---------------------------------------------------------------------------------------------------------------


@router.get("/chat/{path}")
async def show_chat(request: Request, path: str, factory: TheFactory, desk: TheDesk, _: Anybody) -> Response:
    """The conversation before its first message."""
    try:
        route = factory.hooks.find("chat", path)
    except FactoryError as problem:
        return _refused(request, problem)
    return _chat(request, desk, route, path, Talk())


@router.post("/chat/{path}")
async def take_message(request: Request, path: str, factory: TheFactory, desk: TheDesk, _: Anybody) -> Response:
    """Start a run with the message and give its answer: as a page, or as JSON for the page's script."""
    wants_json = "application/json" in request.headers.get("accept", "")
    try:
        route = factory.hooks.find("chat", path)
        given = await _fields(request)
        talk = opened(desk.key, path, given.get("talk", ""))
        text = given.get("text", "").strip()
        if not text or len(text) > MESSAGE:
            problem = "Type a message first." if not text else f"A message has up to {MESSAGE:,} characters."
            raise FactoryError(problem, code="chat.message", status=422)
        desk.admit(Visit.of(request.scope).address, path)
        answer = await factory.hooks.ask(route, talk.event(text))
    except FactoryError as problem:
        if wants_json:
            return plain.problem_json(problem)
        if problem.code == "chat.message":
            return _chat(request, desk, route, path, talk, problem=problem.message, typed=text[:MESSAGE])
        return _refused(request, problem)
    talk.add("user", text)
    said, trouble = _reply(answer)
    if said:
        talk.add("assistant", said)
    if wants_json:
        return JSONResponse({"text": said, "problem": trouble, "talk": talk.seal(desk.key, path)})
    return _chat(request, desk, route, path, talk, problem=trouble)


@router.get("/chat/test/{path}")
async def show_test_chat(request: Request, path: str, factory: TheFactory, desk: TheDesk, _: Anybody) -> Response:
    """The conversation with a test deployment."""
    return await show_chat(request, TEST_PATH + path, factory, desk, None)


@router.post("/chat/test/{path}")
async def take_test_message(request: Request, path: str, factory: TheFactory, desk: TheDesk, _: Anybody) -> Response:
    """A message for a test deployment."""
    return await take_message(request, TEST_PATH + path, factory, desk, None)


def _reply(answer: Answer) -> tuple[str, str]:
    """What the agent says, or why it says nothing."""
    if answer.status >= 500:
        return "", "That did not work. Try again, or put it in other words."
    if answer.status == 202:
        return "", "This takes longer: somebody has to look at it first. You can go on in the meantime."
    text = as_text(answer.body)
    return text, "" if text else "There is no answer to that."


def _chat(
    request: Request, desk: Desk, route: Route, path: str, talk: Talk, *, problem: str = "", typed: str = ""
) -> Response:
    listen = route.listen
    assert isinstance(listen, Chat)
    welcome = _message("assistant", listen.welcome) if listen.welcome else ""
    said = "".join(_message(one["role"], one["text"]) for one in talk.said)
    body = f"""<div class="af-talk" id="talk" role="log" aria-live="polite" aria-label="Conversation" tabindex="0">{welcome}{said}</div>
<div id="problem">{_note(problem) if problem else ""}</div>
<form class="af-form af-say" id="say" method="post">
<input type="hidden" name="talk" value="{talk.seal(desk.key, path)}">
<label class="af-hidden" for="text">Your message</label>
<textarea id="text" name="text" rows="1" maxlength="{MESSAGE}" required autofocus placeholder="Your message">
{escape(typed)}</textarea>
<button class="af-button" type="submit">Send</button>
</form>
<script defer src="{asset_url("js", "chat.js")}"></script>"""
    return _page(request, listen.title, body, policy=_CHAT_POLICY, kind="is-words is-chat")


def _message(role: str, text: str) -> str:
    who = "You" if role == "user" else "Agent"
    kind = "is-mine" if role == "user" else "is-theirs"
    return f'<div class="af-said {kind}"><span class="af-hidden">{who}: </span><span>{escape(text)}</span></div>'


# --- shared --------------------------------------------------------------------------------------------------------------


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a plain form. The kind is ours to say: nothing else is read, least of all files."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise FactoryError("This page takes its own form only.", code="request.type", status=415, fix="Open the page.")
    body = await request.body()
    if len(body) > LIMIT:
        raise TooLarge("That is more than this page takes.", fix="Shorten your answers.")
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        raise TooLarge("That is more than this page takes.", fix="Send fewer answers.") from None
    return dict(pairs)


def as_text(value: Any) -> str:
    """What an agent answers, as plain text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(only := next(iter(value.values())), str | int | float):
            return str(only)
        for name in ("text", "answer", "reply", "message"):
            if isinstance(value.get(name), str):
                return str(value[name])
    return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()


def _refused(request: Request, problem: FactoryError) -> Response:
    titles = {404: "Nothing is here", 429: "One moment, please", 503: "Not open at the moment"}
    words = f"{problem.message} {problem.fix or ''}".strip()
    title = titles.get(problem.status, "That did not work")
    return _page(request, title, f'<p class="af-lead">{escape(words)}</p>', status=problem.status)


def _note(words: str) -> str:
    return f'<div class="af-note is-warn" role="alert"><span>{escape(words)}</span></div>'


def _page(
    request: Request, title: str, body: str, *, status: int = 200, policy: str = plain.POLICY, kind: str = "is-words"
) -> Response:
    style = f'<link rel="stylesheet" href="{asset_url("css", "pages.css")}">'
    shown = plain.page(
        title,
        style + body,
        theme=Visit.of(request.scope).theme,
        status=status,
        kind=kind,  # type: ignore[arg-type]
        headers={"Content-Security-Policy": policy, "X-Robots-Tag": "noindex"},
    )
    return shown
