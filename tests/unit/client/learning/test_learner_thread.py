"""The learning thread: what is waited for at its end."""

import threading

from cospan.client.learning.learner_thread import LearnerThread

LONG = 20.0


def test_the_last_job_is_waited_for_once_it_has_begun() -> None:
    """As long as it takes within the bound: a large group computes what its file holds."""
    thread, begun, goes_on, done = LearnerThread("t"), threading.Event(), threading.Event(), []

    def last() -> None:
        begun.set()
        goes_on.wait(LONG)
        done.append(True)

    thread.submit_last(last)
    thread.submit(lambda: threading.Event().wait(0.0))
    thread.stop()
    assert begun.wait(LONG)
    thread.wait_for_last(0.0)
    assert not done
    threading.Timer(0.01, goes_on.set).start()
    thread.wait_for_last(LONG)
    assert done == [True]
    thread.join(LONG)


def test_a_last_job_behind_one_that_hangs_is_not_waited_for() -> None:
    thread, hangs = LearnerThread("t"), threading.Event()
    thread.submit(lambda: hangs.wait(LONG))
    thread.submit_last(lambda: None)
    thread.wait_for_last(LONG)
    assert not hangs.is_set()
    hangs.set()
    thread.stop()
    thread.join(LONG)
