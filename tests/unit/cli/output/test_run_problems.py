"""What a run that lost agents, or whose agents warned, ends with."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cospan.cli.output.run_problems import (
    Warnings,
    features_to_add,
    lacking_features,
    lost_agents,
    unlike_sites,
    with_causes,
)
from cospan.cli.output.summary import summary_lines
from cospan.cli.run_folder.run_result import AgentRow, DepartedAgent, RunOutcome, read_outcome, result_document
from cospan.client.learning.default_run import new_specification

SENTENCE = "the environment of site-1 gave the reward nan in step 500; it must be finite"
OUTCOME = RunOutcome(
    specification=new_specification("toy", 1, 4, 5, 20),
    run_id="r",
    cause="rounds-reached",
    message="all 20 rounds are done",
    rounds=20,
    seconds=1.0,
    agents=3,
    agent_steps=300,
    basis=np.ones((1, 1)),
    departures=(DepartedAgent("site-1", 7, "it left: it failed (WORKLOAD_BEHAVIOUR); its own output says how"),),
)


class Told:
    """A view that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, progress: object) -> None: ...
    def note(self, text: str) -> None: ...
    def tell(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None: ...


def test_the_failures_own_sentence_takes_the_place_of_the_coordinators() -> None:
    found = with_causes(OUTCOME, {"site-1": SENTENCE}, ())
    assert found.departures == (DepartedAgent("site-1", 7, SENTENCE),)
    assert (found.agents, lost_agents(found)) == (3, ["site-1"])
    document = result_document(found)
    assert document["departures"] == [{"agent_id": "site-1", "round": 7, "cause": SENTENCE, "asked": False}]
    assert read_outcome(document, found.specification, np.ones((1, 1))).departures == found.departures
    rows = [AgentRow("site-0", ""), AgentRow("site-1", "")]
    assert f"gone: site-1 in round 7 ({SENTENCE})" in summary_lines(found, rows, document, Path("f"), width=None)


def test_a_process_that_ended_last_is_lost_although_the_coordinator_does_not_know() -> None:
    found = with_causes(OUTCOME, {"site-2": "its process was ended by SIGKILL"}, ())
    assert [gone.agent_id for gone in found.departures] == ["site-1", "site-2"]
    assert (found.agents, lost_agents(found)) == (2, ["site-1", "site-2"])


def test_who_was_asked_to_leave_is_not_lost() -> None:
    found = with_causes(OUTCOME, {}, {"site-1"})
    assert found.departures[0].asked
    assert lost_agents(found) == []


def test_one_kind_of_warning_is_shown_once() -> None:
    view = Told()
    warnings = Warnings(view)
    for index in range(8):
        warnings.add(f"site-{index}", "action", f"the policy of site-{index} errs")
    warnings.add("site-2", "constant", "the features of site-2 have a constant")
    first, second = warnings.sentences()
    assert view.lines == ["cospan: warning: the policy of site-0 errs", f"cospan: warning: {second}"]
    assert first == ("the policy of site-0 errs (the same of site-1, site-2, site-3, site-4, site-5 and 2 more)")
    outcome = replace(OUTCOME, warnings=(first,))
    assert f"warning: {first}" in summary_lines(outcome, [], result_document(outcome), Path("f"), width=None)


def rows(*shares: float | None) -> list[AgentRow]:
    """Of a run without posteriors."""
    return [AgentRow(f"site-{index}", "", explained_share=share) for index, share in enumerate(shares)]


def test_a_minority_that_the_subspace_explains_badly_is_named() -> None:
    """The shares are those of 17 rings of one kind and 3 of another, with rank 3."""
    (sentence,) = unlike_sites(rows(*[0.99] * 17, 0.771, 0.869, 0.998), 3, None)
    assert (
        "99% of the rewards' pattern at the median site, and far less at site-17 (77%), site-18 (87%)" in sentence
    )
    assert "raise the rank, now 3" in sentence


def test_a_fleet_of_one_kind_is_not_warned_of() -> None:
    """Shares of microgrids after 100 rounds; a fleet of which nothing is known; one that is too small."""
    shares = (0.962, 0.87, 0.969, 0.979, 0.934, 0.972, 0.934, 0.952, 0.95, 0.937, 0.951, 0.963, 0.965, 0.982, 0.788)
    assert unlike_sites(rows(*shares), 12, None) == []
    assert unlike_sites(rows(None, None, None, None, None), 3, None) == []
    assert unlike_sites(rows(0.99, 0.99, 0.3), 3, None) == []


def weighted(*weights: float | None) -> list[AgentRow]:
    """Of a run with posteriors; the explained shares, whatever they are, say nothing of those."""
    return [
        AgentRow(f"site-{index}", "", shared_weight=weight, explained_share=0.1 if index == 1 else 0.99)
        for index, weight in enumerate(weights)
    ]


def test_sites_that_answer_from_their_own_data_are_named_with_their_shared_weight() -> None:
    agents = weighted(0.88, 0.9, 0.09, 0.85, 0.0, 0.97, None)
    (sentence,) = unlike_sites(agents, 12, 7)
    assert "0.86 at the median site, and below 0.1 at site-4 (0.00), site-2 (0.09)" in sentence
    assert "rank" not in sentence, "directions are left that the fleet has switched off"
    (sentence,) = unlike_sites(agents, 12, 12)
    assert sentence.endswith("every direction of the basis is in use, so a larger rank may serve them")


def test_a_weight_that_rounds_to_the_bound_is_shown_below_it() -> None:
    (sentence,) = unlike_sites(weighted(0.88, 0.09997, 0.9, 0.85, 0.97), 12, 7)
    assert "below 0.1 at site-1 (0.09997)" in sentence
    (sentence,) = unlike_sites(weighted(0.88, 0.0999, 0.9, 0.85, 0.08), 12, 7)
    assert "below 0.1 at site-4 (0.08), site-1 (0.0999)" in sentence


def test_weights_that_are_low_everywhere_or_nowhere_are_not_warned_of() -> None:
    """After years of data each site has enough of its own; a fleet may also be too small."""
    assert unlike_sites(weighted(0.05, 0.3, 0.2, 0.6, 0.1), 12, 12) == []
    assert unlike_sites(weighted(0.9, 0.8, 0.7, 0.6), 12, 12) == []
    assert unlike_sites(weighted(0.9, 0.8, 0.05), 12, 12) == []


def correlated(name: str, *pair: float | None) -> AgentRow:
    return AgentRow(name, "", td_error_correlation=pair[:1], td_error_correlation_error=pair[1:])


def test_sites_whose_td_errors_are_correlated_are_named_worst_first_with_the_remedy() -> None:
    agents = [
        correlated("small", 0.09, 0.01),
        correlated("uncertain", 0.5, 0.2),
        correlated("some", 0.3, 0.08),
        correlated("against", -0.4, 0.01),
        correlated("unknown", None, None),
        correlated("most", 0.52, 0.16),
        AgentRow("without", ""),
    ]
    (sentence,) = lacking_features(agents)
    assert "at most (0.5), some (0.3): the features there lack something that persists; add what" in sentence
    assert lacking_features([agent for agent in agents if agent.id not in ("most", "some")]) == []


def test_what_td_errors_depend_on_is_named_with_the_remedy_worst_first() -> None:
    agents = [
        AgentRow("one", "", feature_gaps={"observation[2]": 0.3, "time modulo 168 steps": 0.02}),
        AgentRow("two", "", feature_gaps={"observation[2]": 0.4, "observation[0]": 0.005}),
        AgentRow("three", ""),
    ]
    part, period = features_to_add(agents)
    assert part == (
        "TD errors depend on observation[2] beyond the features at two (40%), one (30%), in shares of their "
        "variance: add finer features of it"
    )
    assert period.startswith("TD errors depend on time modulo 168 steps beyond the features at one (2%)")
    assert period.endswith("add that time to the observation and the features")
    assert features_to_add(agents[2:]) == []
