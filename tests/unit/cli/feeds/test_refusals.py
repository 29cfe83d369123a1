"""What people are told of refused steps."""

from cospan.cli.feeds.refusals import Refusals
from cospan.client.feeds.step_messages import Told


def test_one_sentence_a_second_and_how_many_more() -> None:
    said: list[str] = []
    now = [0.0]
    refusals = Refusals(said.append, "site-7", lambda: now[0])
    for _ in range(3):
        refusals.look(Told(refused=[(4, "wrong")], refusals=2), "line {line} of standard input")
    assert said == ["line 4 of standard input: wrong"]
    now[0] = 1.5
    refusals.say("the broker is gone")
    assert said[1:] == ["the broker is gone (4 more before)"]
    refusals.end()
    assert len(said) == 2
    refusals.look(Told(refused=[(4, "wrong")], refusals=2), "line {line} of standard input")
    refusals.end()
    refusals.end()
    assert said[2:] == ["site-7: 2 more after that"]


def test_a_sender_that_numbers_anew_is_told_of_once() -> None:
    said: list[str] = []
    now = [0.0]
    refusals = Refusals(said.append, "site-7", lambda: now[0])
    for now[0] in (0.0, 5.0, 10.0):
        refusals.look(Told(past=3, newest=5000), "")
    (text,) = said
    assert "3 steps are older than those that are remembered" in text
    assert "continue behind step 5000" in text
