"""The reader of socket frames alone: it never breaks, lets nothing unknown through, and stops when the session does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.frames import BURST, FRAME_LIMIT, RATE, Frames

CID = "00000000-0000-4000-8000-000000000000"
ACK = "42" + json.dumps(["ack", {"client_id": CID, "next_message_id": 1}])


class Line:
    """Both ends of a connection: frames that arrive, and what was sent back."""

    def __init__(self, *texts: str) -> None:
        self.arriving = [{"type": "websocket.receive", "text": text} for text in texts]
        self.sent: list[MutableMapping[str, Any]] = []

    async def receive(self) -> MutableMapping[str, Any]:
        return self.arriving.pop(0) if self.arriving else {"type": "websocket.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)


async def passed(*texts: str, alive: bool = True) -> tuple[list[str], Line]:
    """The frames that get through."""
    line = Line(*texts)
    frames = Frames(line.receive, line.send, CID, lambda: alive)
    through = []
    while (message := await frames.receive())["type"] == "websocket.receive":
        through.append(message["text"])
    return through, line


async def test_sound_frames_pass_and_others_vanish() -> None:
    through, line = await passed("2", "42[", "40", ACK, "45-", "9", ACK.replace(CID, "other"), "3")
    assert through == ["2", "40", ACK, "3"]
    assert line.sent == []


@given(
    st.text(max_size=50),
    st.sampled_from(["", "4", "42", "4212", '42["ack",', '42["event",{"client_id":"' + CID + '",']),
)
def test_no_text_breaks_it(text: str, start: str) -> None:
    through, _ = asyncio.run(passed(start + text))
    assert through == [] or through[0] in ("1", "2", "3", "40", "40{}", "41") or through[0].startswith("42")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["client_id", "id", "args", "x"]), inner)
        ),
        max_leaves=8,
    )
)
def test_no_json_breaks_it(value: Any) -> None:
    for event in ("event", "ack", "handshake", "javascript_response", "log", "connect"):
        through, _ = asyncio.run(passed("42" + json.dumps([event, value])))
        assert through == []


async def test_when_the_session_has_ended_nothing_passes_and_the_socket_closes() -> None:
    through, line = await passed(ACK, "2", ACK, alive=False)
    assert through == []
    assert line.sent == [{"type": "websocket.close", "code": 1008}]


async def test_after_closing_nothing_is_sent_any_more() -> None:
    line = Line()
    frames = Frames(line.receive, line.send, CID, lambda: True)
    await frames.close(1008)
    await frames.close(1008)
    await frames.send({"type": "websocket.send", "text": "secret"})
    assert line.sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(("size", "expected"), [(FRAME_LIMIT, 1), (FRAME_LIMIT + 1, 0), (FRAME_LIMIT * 100, 0)])
async def test_frames_have_a_limit(size: int, expected: int) -> None:
    frame = "42" + json.dumps(["javascript_response", {"client_id": CID, "request_id": "r", "result": ""}])
    frame = frame[:-3] + "x" * (size - len(frame)) + frame[-3:]
    assert len(frame) == size
    through, _ = await passed(frame)
    assert len(through) == expected


async def test_a_flood_is_slowed_down_and_nothing_of_it_is_lost() -> None:
    more = 10
    began = time.monotonic()
    through, _ = await passed(*[ACK] * (int(BURST) + more))
    assert len(through) == int(BURST) + more
    assert time.monotonic() - began >= (more - 1) / RATE
