"""From what a caller says to a call, and from an outcome to what the caller gets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headway.body import Body
from headway.errors import (
    BrokerUnreachable,
    InvalidInput,
    QueueFull,
    RemoteProtocolError,
    TooLarge,
    UnknownModel,
)
from headway.messages import (
    BATCH_ROWS_MAX,
    OPTIONS_MAX,
    REQUEST_BYTES_MAX,
    Batch,
    Batches,
    BatchRequest,
    Query,
    Reply,
    Request,
    Requests,
)
from headway.outgoing import (
    OPTIONS_BYTES_MAX,
    Asked,
    answer_of,
    ask_body,
    ask_tensors,
    body_of,
    call_of,
    deadline_of,
    models_of,
    query_of,
    reply_of,
    tensors_of,
)
from headway.tensors import pack, unpack
from headway.wire import decode, encode


def asked(**changed):
    return Asked("tiny", "", 0, {}, b"")._replace(**changed)


def on_the_wire(call):
    """The request as the broker gets it: proves that the wire carries it."""
    message = Requests(
        [Request(call.id, call.model, call.version, 1, 0, call.rows, call.options, call.tensors)]
    )
    assert decode(encode(message)) == message
    return message.requests[0]


# ---- asking


@pytest.mark.parametrize(
    ("value", "dtype"),
    [([1.0, 2.0], "float64"), ([1, 2], "int64"), (True, "bool"), (np.float32(1), "float32"), ([], "float64")],
)
def test_inputs_are_whatever_numpy_makes_an_array_of(value, dtype):
    array = unpack(ask_tensors("tiny", {"x": value}).tensors)["x"]
    assert array.dtype == dtype
    assert array.tolist() == np.asarray(value).tolist()


@pytest.mark.parametrize("value", [[[1], [1, 2]], object(), None, {}, [1, "a", None], 10**30, 1j])
def test_an_input_that_is_no_array_is_refused_by_name(value):
    with pytest.raises(InvalidInput, match="'mine'"):
        ask_tensors("tiny", {"mine": value})


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [({"x": np.zeros((3, 2))}, 3), ({"x": np.zeros(1), "y": np.zeros((1, 5))}, 1), ({"x": ["a", "b"]}, 2)],
)
def test_a_batched_request_has_the_rows_of_its_inputs(inputs, rows):
    assert ask_tensors("tiny", inputs, batched=True).rows == rows
    assert ask_tensors("tiny", inputs).rows == 0


@pytest.mark.parametrize("inputs", [{}, {"x": 1.0}, {"x": np.zeros((0, 2))}, {"x": [1], "y": [1, 2]}])
def test_a_batched_request_without_one_leading_size_is_refused(inputs):
    with pytest.raises(InvalidInput, match="leading size"):
        ask_tensors("tiny", inputs, batched=True)


def test_a_request_over_the_limit_is_refused_with_both_numbers():
    with pytest.raises(TooLarge, match=f"over the limit of {REQUEST_BYTES_MAX}"):
        ask_tensors("tiny", {"x": np.zeros(REQUEST_BYTES_MAX, np.uint8)})
    with pytest.raises(TooLarge, match=f"over the limit of {REQUEST_BYTES_MAX}"):
        ask_body("tiny", bytes(REQUEST_BYTES_MAX))


def test_a_request_at_the_limit_fits_into_a_message():
    options = {str(i): "x" * (OPTIONS_BYTES_MAX // OPTIONS_MAX - 20) for i in range(OPTIONS_MAX)}
    call = call_of(1, asked(tensors=bytes(REQUEST_BYTES_MAX), options=options, model="\U00010000" * 128), 1.0)
    on_the_wire(call)
    assert 0 < call.options_bytes <= OPTIONS_BYTES_MAX


def test_bytes_are_a_body_without_a_type():
    assert ask_body("tiny", b"raw", "2") == ask_body("tiny", Body(b"raw"), "2")
    assert ask_body("tiny", b"raw", "2").version == "2"


# ---- calls


def test_a_call_holds_what_was_asked():
    request = on_the_wire(call_of(7, ask_tensors("tiny", {"x": [1.0]}, "3", batched=True), 5.0))
    assert (request.id, request.model, request.version, request.rows) == (7, "tiny", "3", 1)
    assert call_of(7, asked(), 5.0).deadline == 5.0
    assert query_of(8, "stats", 5.0).query == Query(8, "stats").what


@pytest.mark.parametrize("name", ["m" * 129, "\ud800", "a\nb", "\0", None, 3, b"m", ["m"]])
def test_a_name_that_the_wire_does_not_carry_names_no_model(name):
    for changed in ({"model": name}, {"version": name}):
        with pytest.raises(UnknownModel):
            call_of(1, asked(**changed), 1.0)


@pytest.mark.parametrize("name", ["", "m" * 128, "ä", "a b"])
def test_other_names_are_the_brokers_to_judge(name):
    on_the_wire(call_of(1, asked(model=name, version=name), 1.0))


def test_more_rows_than_the_wire_counts_are_too_large():
    on_the_wire(call_of(1, asked(rows=BATCH_ROWS_MAX), 1.0))
    with pytest.raises(TooLarge, match=str(BATCH_ROWS_MAX)):
        call_of(1, asked(rows=BATCH_ROWS_MAX + 1), 1.0)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "options",
    [
        {str(i): 1 for i in range(OPTIONS_MAX + 1)},
        {1: 1},
        {b"a": 1},
        {"a": object()},
        {"a": 2**64},
        {"a": "\ud800"},
        {"a": np.float32(1)},
        {"a": nested(1100)},
        {"a": nested(100_000)},
    ],
    ids=["many", "int", "bytes", "object", "large int", "surrogate", "numpy", "deep", "very deep"],
)
def test_options_that_cannot_travel_are_invalid_input(options):
    with pytest.raises(InvalidInput, match="options"):
        call_of(1, asked(options=options), 1.0)


def test_options_that_can_just_travel_do():
    depth = 1024
    while True:
        try:
            call = call_of(1, asked(options={"a": nested(depth)}), 1.0)
            break
        except InvalidInput:
            depth -= 1
    assert depth > 400
    rider = BatchRequest(1, 0, call.options, b"")  # the deepest message that options travel in
    assert decode(encode(Batches([Batch(1, "m", "1", 1, [rider])]))).batches[0].requests[0].tensors == b""


def test_options_over_the_limit_are_too_large():
    with pytest.raises(TooLarge, match=str(OPTIONS_BYTES_MAX)):
        call_of(1, asked(options={"a": "x" * OPTIONS_BYTES_MAX}), 1.0)


@pytest.mark.parametrize(
    ("timeout_s", "deadline"), [(1, 11), (0, 10), (-5, 5), (math.inf, math.inf), (0.5, 10.5)]
)
def test_a_deadline_is_now_and_the_timeout(timeout_s, deadline):
    assert deadline_of(10.0, timeout_s) == deadline


def test_a_timeout_that_is_no_number_is_invalid_input():
    with pytest.raises(InvalidInput, match="timeout_s"):
        deadline_of(10.0, math.nan)


# ---- outcomes


def test_the_tensors_of_a_reply_are_views_on_it():
    reply = Reply(1, 0, pack({"y": np.arange(3)}), {})
    array = tensors_of(reply_of(reply))["y"]
    assert array.tolist() == [0, 1, 2]
    assert np.shares_memory(array, np.frombuffer(reply.content, np.uint8))


def test_the_body_of_a_reply_has_its_type_or_the_usual_one():
    assert body_of(Reply(1, 0, b"{}", {"content_type": "application/json"})) == Body(
        b"{}", "application/json"
    )
    assert body_of(Reply(1, 0, b"", {})).content_type == "application/octet-stream"
    assert body_of(Reply(1, 0, b"", {"content_type": 5})).content_type == "5"


def test_an_error_is_raised():
    error = QueueFull("full", 0.5)
    with pytest.raises(QueueFull) as caught:
        reply_of(error)
    assert caught.value is error


@pytest.mark.parametrize("outcome", [None, {}, {"models": []}, Reply(1, 0, "text", {}), b""])
def test_what_is_no_reply_is_a_protocol_error(outcome):
    with pytest.raises(RemoteProtocolError):
        reply_of(outcome)


@pytest.mark.parametrize("content", [b"", b"\0" * 3, b"\xff" * 100])
def test_a_reply_without_tensors_is_not_the_callers_fault(content):
    with pytest.raises(RemoteProtocolError, match="reply's tensors"):
        tensors_of(Reply(1, 0, content, {}))


def test_the_models_of_an_answer():
    assert models_of({"models": [{"name": "m"}]}) == [{"name": "m"}]
    for answer in ({}, {"models": None}, {"models": {}}):
        with pytest.raises(RemoteProtocolError):
            models_of(answer)


def test_the_error_of_a_question_is_raised_as_it_is():
    with pytest.raises(BrokerUnreachable):
        answer_of(BrokerUnreachable("away"))
