"""Frames survive any way of arriving, and nothing that a worker sends can do more than end its own line."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.workers import inside, script
from runtime.workers.backend import Job, Profile
from runtime.workers.protocol import BadInput, Frames, ProtocolError, encode, job_frame, read_beat, read_result

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
from_workers = st.dictionaries(st.sampled_from(["id", "value", "error", "killed", "stdout", "seconds"]), values).map(
    lambda rest: {"type": "result", **rest}
)


@given(st.lists(from_workers, max_size=5), st.data())
def test_frames_come_out_as_they_went_in_however_they_are_cut(sent, data):
    stream = b"".join(encode(frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    frames = Frames()
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += frames.feed(stream[start:end])
    assert got == [orjson.loads(orjson.dumps(frame)) for frame in sent]


@given(st.lists(from_workers, max_size=3), st.integers(0, 7))
def test_both_ends_read_each_other(sent, cut):
    buffer = bytearray()
    got = []
    for frame in sent:
        wire = encode(frame)
        buffer += wire[:cut]
        assert cut >= len(wire) or inside.take(buffer) is None
        buffer += wire[cut:]
        got.append(inside.take(buffer))
    assert Frames().feed(b"".join(inside.encode(frame) for frame in got)) == [
        orjson.loads(orjson.dumps(frame)) for frame in sent
    ]


@given(st.binary(max_size=200))
def test_rubbish_is_refused_and_nothing_else_happens(data):
    try:
        Frames(limit=1000).feed(data)
    except ProtocolError as error:
        assert error.code == "worker.protocol"


def test_a_frame_too_large_is_refused_before_it_arrives():
    with pytest.raises(ProtocolError):
        Frames(limit=100).feed((101).to_bytes(4, "big"))


JOB = Job(id="j", code="return 1")


@given(from_workers)
def test_a_result_is_read_field_by_field_or_refused(frame):
    try:
        result = read_result(frame, JOB, Profile())
    except ProtocolError:
        return
    assert frame["id"] == "j"
    assert result.ok == (result.error is None)
    assert isinstance(result.stdout, str)


def test_a_worker_cannot_answer_for_another_job():
    with pytest.raises(ProtocolError):
        read_result({"type": "result", "id": "other", "value": "1"}, JOB, Profile())


@given(values)
def test_inputs_arrive_as_they_are(value):
    frame = orjson.loads(job_frame(Job(id="j", code="", inputs={"value": value}), Profile())[4:])
    assert json.loads(frame["inputs"])["value"] == orjson.loads(orjson.dumps(value))


@pytest.mark.parametrize(
    "job",
    [
        Job(id="j", code="", inputs={"a": object()}),
        Job(id="j", code="", inputs={"a": "x" * 9_000_000}),
        Job(id="j", code="x" * 9_000_000),
        Job(id="j", code="", timeout=0),
        Job(id="j", code="", timeout=1e9),
        Job(id="j", code="'\ud800'"),
    ],
)
def test_a_job_that_no_worker_could_take_is_refused(job):
    with pytest.raises(BadInput) as caught:
        job_frame(job, Profile())
    assert caught.value.message


@given(values)
def test_every_json_value_may_be_a_result(value):
    assert orjson.loads(script.to_json(value, 1_000_000)) == orjson.loads(orjson.dumps(value))


anything = st.recursive(
    values | st.sampled_from([float("inf"), 2**64, "\ud800", {1}, object(), b"", 1j]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
)


@given(anything)
def test_a_value_is_either_json_or_refused_with_a_sentence(value):
    try:
        wire = script.to_json(value, 1_000_000)
    except script.NotJson as error:
        assert str(error).startswith("`result")
    else:
        orjson.loads(wire)


@given(st.dictionaries(st.sampled_from(["cpu", "memory", "processes", "disk", "x"]), values | st.floats()))
def test_whatever_a_heartbeat_says_the_figures_are_figures(frame):
    vital = read_beat({"type": "beat", **frame}, 7.0)
    assert vital.at == 7.0
    for figure in (vital.cpu, vital.memory, vital.processes, vital.disk):
        assert 0 <= figure <= 2**60
    assert vital.cpu == vital.cpu, "not a number is none"
