"""The text that asks for differential privacy: every wrong one has a sentence of its own."""

import pytest

from cospan.core.privacy.request import PrivacyRequest


def test_a_promise_is_read() -> None:
    assert PrivacyRequest.parse("epsilon=8,delta=1e-5") == PrivacyRequest(8.0, 1e-5)
    every = "delta = 1e-6, epsilon=2,vectors=12,gradient-bound=1,curvature-bound=2,influence-bound=3"
    assert PrivacyRequest.parse(every) == PrivacyRequest(2.0, 1e-6, 12, 1.0, 2.0, 3.0)


def test_off_asks_for_none() -> None:
    assert PrivacyRequest.parse(" Off") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' in it is none of epsilon, delta, vectors"),
        ("8", "'8' in it is none of epsilon"),
        ("epsilon=8,delta=1e-5,", "'' in it is none of"),
        ("epsilom=8,delta=1e-5", "'epsilom=8' in it is none of"),
        ("epsilon=8", "it lacks delta; write it as epsilon=8,delta=1e-5"),
        ("vectors=3", "it lacks epsilon and delta"),
        ("epsilon=8,epsilon=9,delta=1e-5", "it says epsilon twice"),
        ("epsilon=eight,delta=1e-5", "epsilon is 'eight'; it must be a number"),
        ("epsilon=0,delta=1e-5", "epsilon is 0; it must be above 0 and at most 100"),
        ("epsilon=-1,delta=1e-5", "epsilon is -1; it must be above 0"),
        ("epsilon=nan,delta=1e-5", "epsilon is nan"),
        ("epsilon=8,delta=0", "delta is 0; it must be above 0 and below 1"),
        ("epsilon=8,delta=1", "delta is 1; it must be above 0 and below 1"),
        ("epsilon=8,delta=1e-5,vectors=2.5", "vectors is 2.5; it must be a whole number"),
        ("epsilon=8,delta=1e-5,vectors=-1", "vectors is -1; it must be 1 to 1000000"),
        ("epsilon=8,delta=1e-5,vectors=inf", "vectors is inf; it must be a whole number"),
        ("epsilon=8,delta=1e-5,gradient-bound=0", "gradient-bound is 0; it must be above 0"),
        ("epsilon=8,delta=1e-5,influence-bound=inf", "influence-bound is inf; it must be above 0 and finite"),
    ],
)
def test_what_asks_for_nothing_is_refused_with_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        PrivacyRequest.parse(text)
    assert problem in str(refusal.value)
