"""Steps as JSON: objects, rows, late rewards; what is no step, and what a message comes to."""

import json
from typing import Any

import pytest
from feed_values import feed_of

from cospan.client.feeds.step_messages import MOST_BYTES, read_step, tell, tell_document
from cospan.client.feeds.told import FeedStep


def line(**step: Any) -> bytes:
    return json.dumps(step).encode()


def test_objects_and_rows_are_steps() -> None:
    form = feed_of().form
    assert read_step(line(sequence=1, observation=[2.0], reward=3.0, at=4), form) == FeedStep([2.0], 3.0, 1, 4)
    assert read_step(line(sequence=1, reward=3.0), form) == FeedStep(None, 3.0, 1, None)
    row = {"at": 4, "x": 2.0, "r": "3", "more": 1}
    assert read_step(line(**row), form) == FeedStep(row, 3.0, None, 4)
    assert read_step(line(at=4, r=3.0), form) == FeedStep(None, 3.0, None, 4)
    assert read_step(line(sequence=9, x=2.0), form) == FeedStep({"sequence": 9, "x": 2.0}, None, 9, None)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"{", "'{' is no JSON"),
        (b"[1]", "a step must be a JSON object"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"sequence": ' + b"9" * 5000 + b"}", "no JSON"),
        (b" " * (MOST_BYTES + 1), "are read"),
        (b'{"observation": [1], "sequnce": 1}', "'sequnce' is no key of a step"),
    ],
)
def test_what_is_no_step_is_refused_with_its_line(text: bytes, match: str) -> None:
    feed = feed_of()
    told = tell(feed, [line(sequence=0, observation=[1.0]), b"", text])
    assert (told.accepted, told.refusals) == ((1, 0) if not text.strip() else (1, 1))
    assert feed.status().refused == told.refusals
    if told.refused:
        ((number, sentence),) = told.refused
        assert number == 3
        assert match in sentence


def test_a_message_comes_to_a_document() -> None:
    feed = feed_of(limit=2)
    steps = [
        {"sequence": 0, "observation": [1.0], "reward": 1.0},
        {"sequence": 0, "observation": [1.0], "reward": 1.0},
        {"sequence": 1, "observation": "x"},
        {"sequence": 1, "observation": [1.0]},
        {"sequence": 2, "observation": [1.0]},
    ]
    document = tell_document(feed, json.dumps(steps).encode()).as_document()
    assert document["accepted"] == 2
    assert document["repeated"] == 1
    assert document["newest"] == 1
    assert document["refused"] == 1
    sentence = "step 1 of site-7 is refused: the observation 'x' is no row; send the columns x"
    assert document["errors"] == [{"line": 3, "error": sentence}]
    assert "holds 2 steps" in str(document["full"])
    json.dumps(document)


def test_one_object_is_a_document_as_well_and_no_json_is_refused() -> None:
    feed = feed_of()
    assert tell_document(feed, b'{\n "sequence": 0,\n "observation": [1.0]\n}').accepted == 1
    assert tell_document(feed, b"nothing").refusals == 1
    assert tell_document(feed, b"[]").as_document() == {"accepted": 0, "repeated": 0, "newest": 0}


def test_of_many_errors_the_first_are_shown() -> None:
    told = tell(feed_of(), [b"?"] * 100)
    assert told.refusals == 100
    assert len(told.refused) == 20
