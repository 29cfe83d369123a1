"""The answers to an operator's questions, from the numbers of a run alone."""

from dataclasses import replace
from typing import Any

import pytest
from runs import specification

from cospan.core.method import practical
from cospan.core.run_fields import Participation
from cospan.dashboard.analysis.answers import answers_of, time_parts
from cospan.dashboard.analysis.facts import Answer, Facts
from cospan.dashboard.analysis.learnt import Learnt
from cospan.dashboard.analysis.trend import Trend
from cospan.dashboard.rank_spectrum import Spectrum
from cospan.dashboard.series import Round, RoundSeries
from cospan.wire.messages import AgentPhase, AgentReport, FinishCause

NAMES = [f"site-{number}" for number in range(5)]
FALLING = Trend("value error", 50, 0.5, 0.25, 0.5)


def agent(name: str, **changes: Any) -> AgentReport:
    found = AgentReport(name, AgentPhase.CONNECTED, 0.0, awaited=False, rounds_counted=100, reconnects=0)
    return replace(found, **changes)


def series(**known: float) -> RoundSeries:
    found = RoundSeries()
    for number in range(100):
        found.add(Round(number, 0.1, 5, 0.01, known))
    return found


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "specification": specification(practical(3), rounds=1000, agents=5),
        "rounds": 100,
        "series": series(),
        "agents": [agent(name) for name in NAMES],
        "trend": FALLING,
        "arrivals": dict.fromkeys(NAMES, 0.02),
    }
    return Facts(**(values | changes))


def answer(key: str, **changes: Any) -> Answer:
    return next(each for each in answers_of(facts(**changes)) if each.key == key)


def test_every_question_has_an_answer_even_where_nothing_is_known() -> None:
    empty = Facts(specification(), 0, RoundSeries(), [], waiting=True)
    for each in (empty, replace(empty, waiting=False), replace(empty, waiting=False, live=False), facts()):
        found = answers_of(each)
        assert [one.key for one in found] == ["learning", "alone", "unusual", "slow", "time", "next"]
        assert all(one.verdict and all(one.sentences) and one.sentences for one in found)


# Are policies getting better? ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rounds", "where"),
    [
        (100, "Improvement step 2 of 2: round 31 of 60 of evaluation."),
        (135, "Improvement step 2 of 2: round 6 of 10 of trial."),
        (140, "All 2 improvement steps are done."),
    ],
)
def test_a_run_with_improvement_steps_says_where_it_stands_and_who_has_improved(rounds: int, where: str) -> None:
    spec = specification(
        practical(3),
        rounds=200,
        agents=5,
        improve=2,
        evaluation_rounds=60,
        trial_rounds=10,
        explore=0.1,
        confidence=0.9,
    )
    none = answer("policies", specification=spec, rounds=rounds)
    assert (none.verdict, none.sentences[0]) == ("None yet", where)
    agents = [agent(name, policy_improved=name == "site-3") for name in NAMES]
    found = answer("policies", specification=spec, rounds=rounds, agents=agents)
    assert (found.verdict, found.agents) == ("1 of 5 improved", ("site-3",))


# Is it learning still? -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trend", "verdict", "said"),
    [
        (FALLING, "Yes", "fell by 50%, from 0.5 in round 50 to 0.25"),
        (Trend("value error", 50, 0.25, 0.3, -0.2), "It gets worse", "rose by 20%"),
        (Trend("value error", 50, 0.25, 0.255, -0.02), "Hardly any more", "rose by 2%"),
        (Trend("prior", 50, 1.0, 1.0, 0.05), "Slowly", "what the fleet shares has changed by 5.0%"),
        (Trend("movement", 75, 0.02, 0.01, 0.5), "Yes, and settling", "turned the basis by 0.01"),
        (None, "Just begun", "Too few rounds"),
    ],
)
def test_what_moved_says_whether_it_still_learns(trend: Trend | None, verdict: str, said: str) -> None:
    found = answer("learning", trend=trend)
    assert found.verdict == verdict
    assert said in found.sentences[0]


def test_the_spread_over_the_agents_is_told_where_it_is_known() -> None:
    known = series(value_error=0.02, value_low=0.01, value_high=0.04)
    assert (
        answer("learning", series=known)
        .sentences[-1]
        .startswith("Half of the agents have a value error between 0.01 and 0.04")
    )


def test_a_run_that_is_over_tells_the_reason() -> None:
    done = answer("learning", cause=FinishCause.ROUNDS_REACHED, message="all 100 rounds are done")
    assert (done.verdict, done.sentences[0]) == ("Finished", "All 100 rounds are done.")
    stored = answer("learning", cause="failed", message="no gradient is finite", live=False)
    assert (stored.verdict, stored.tone) == ("Ended early", "bad")
    assert answer("learning", live=False).verdict == "Interrupted"
    waiting = answer("learning", waiting=True, agents=[agent("site-0")])
    assert waiting.sentences == ("It waits for 4 of 5 agents.",)


# Who? ------------------------------------------------------------------------------------------------------------


def test_sites_that_are_worse_than_alone_are_named_the_worst_first() -> None:
    learnt = {
        "site-0": Learnt(value_error=0.1, lstd_alone=0.2, td_alone=0.4),
        "site-1": Learnt(value_error=0.3, lstd_alone=0.2, td_alone=0.4),
        "site-2": Learnt(value_error=0.3, lstd_alone=0.2, td_alone=0.1),
        "site-3": Learnt(value_error=0.3),
    }
    found = answer("alone", learnt=learnt)
    assert (found.verdict, found.agents) == ("2 of 3", ("site-2", "site-1"))
    assert "The worst is site-2, with 3 times its error alone." in found.sentences
    assert answer("alone", learnt={"site-0": learnt["site-0"]}).verdict == "None of 1"
    unknown = answer("alone", learnt={})
    assert (unknown.verdict, unknown.agents) == ("Unknown", ())


def test_unusual_agents_are_named_with_the_reason() -> None:
    learnt = {name: Learnt(shared_weight=0.6) for name in NAMES} | {"site-1": Learnt(shared_weight=0.02)}
    agents = [agent(name) for name in NAMES]
    agents[2] = agent("site-2", outlier_rounds=20)
    agents[3] = agent("site-3", head_bounded=True)
    errors = dict.fromkeys(NAMES, 1.0) | {"site-1": 9.0}
    found = answer("unusual", agents=agents, learnt=learnt, td_errors=errors)
    assert found.agents == ("site-1", "site-2", "site-3")
    first, second, third = found.sentences
    assert (
        first == "site-1: shared weight 0.02 (median 0.60), so it answers from its own data; TD error 9 (median 1)."
    )
    assert "an outlier in 20 rounds" in second
    assert "head_radius" in third
    assert answer("unusual").agents == ()


def test_a_slow_agent_is_named_by_when_its_gradient_arrives() -> None:
    arrivals = dict.fromkeys(NAMES, 0.02) | {"site-3": 0.5}
    found = answer("slow", arrivals=arrivals)
    assert (found.verdict, found.agents) == ("1 of 5", ("site-3",))
    assert "site-3 (500 ms); the median gradient arrives after 20 ms" in found.sentences[0]
    assert "waits for the last" in found.sentences[0]
    quorum = specification(practical(3), participation=Participation.QUORUM, quorum=0.5)
    assert "close without them" in answer("slow", arrivals=arrivals, specification=quorum).sentences[0]
    alike = dict.fromkeys(NAMES, 0.02) | {"site-3": 0.06}
    assert answer("slow", arrivals=alike).verdict == "None", "40 ms are none that a person would act on"


def test_of_a_stored_run_those_that_missed_rounds_are_slow() -> None:
    agents = [agent(name) for name in NAMES]
    agents[4] = agent("site-4", rounds_counted=60)
    found = answer("slow", agents=agents, live=False)
    assert (found.verdict, found.agents) == ("1 missed rounds", ("site-4",))


# Where the time goes, and what next ------------------------------------------------------------------------------


def test_the_parts_of_a_round_are_shares_of_it() -> None:
    known = series(agents=0.06, network=0.03, aggregation=0.01, disk=0.0)
    found = answer("time", series=known)
    assert found.verdict == "60% the agents"
    assert "messages and waiting processes 30%, aggregation 10%, the disk 0%" in found.sentences[0]
    together = answer("time", series=series(agents=0.09, aggregation=0.01, disk=0.0))
    assert together.verdict == "90% agents and network"
    assert time_parts(facts()) == {}


def test_what_next_follows_from_the_other_answers() -> None:
    worse = {"site-1": Learnt(value_error=0.3, lstd_alone=0.2, shared_weight=0.01)}
    learnt = {name: Learnt(value_error=0.1, lstd_alone=0.2, shared_weight=0.7) for name in NAMES} | worse
    assert "Run such sites as a fleet of their own" in answer("next", learnt=learnt).sentences[0]
    gone = [*(agent(name) for name in NAMES[:4]), agent("site-4", phase=AgentPhase.GONE)]
    assert answer("next", agents=gone).sentences[0].startswith("site-4: gone.")
    idle = Spectrum((0.9, 0.1, 0.0), 2, "covariance", "idle", "")
    assert "The evidence uses 2 directions: --rank 2 would do." in answer("next", spectrum=idle).sentences
    moments = replace(idle, source="moments")
    assert answer("next", spectrum=moments).verdict == "Nothing to do", "second moments are no evidence"
    rest = answer("next", trend=Trend("prior", 50, 1.0, 1.0, 0.01))
    assert "more rounds hardly help" in rest.sentences[0]
    over = answer("next", cause="rounds-reached", live=False, learnt={"a": Learnt(value_error=0.1, td_alone=0.2)})
    assert "still learning when it ended" in over.sentences[0]
    assert "ValueFunction.load" in over.sentences[1]
