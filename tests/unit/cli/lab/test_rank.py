"""`cospan rank`: what it finds, what it prints, and what it refuses."""

import dataclasses
import importlib.util
import json
from typing import Any

import numpy as np
import pytest
from bikes import bikes, blind, make_station, within_hours

from cospan.cli.lab import rank
from cospan.cli.lab.rank import lines_of, rank_here
from cospan.cli.lab.rank_estimation import (
    RESAMPLES,
    FleetSamples,
    Ranking,
    rank_document,
    ranking_of,
    simulate_agents,
)
from cospan.cli.settings.run_specification import plan_with_workload
from cospan.client.learning.run_config import specify
from cospan.core.rank import Spectrum
from cospan.wire.errors import InvalidValueError


def ranked(workload: str, agents: int, rounds: int) -> tuple[Any, Ranking]:
    flags = {"agents": str(agents), "rounds": str(rounds), "seed": "1"}
    plan = plan_with_workload(flags, None, reference=workload, spec_file=None, rounds=1)
    assert plan.workload is not None
    told: list[int] = []
    found = ranking_of(simulate_agents(plan.workload, plan.specification, told.append), 0.99)
    assert told == list(range(1, agents + 1))
    return plan.specification, found


def test_the_rank_of_the_synthetic_fleet_is_three() -> None:
    spec, found = ranked("synthetic", 16, 100)
    assert (found.rank, found.agreement > 0.9) == (3, True)
    document = rank_document(spec, found)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["rank"], document["resamples"], document["steps_per_agent"]) == (3, RESAMPLES, 1000)
    assert [each["component"] for each in document["components"]] == list(range(1, 21))
    for each in document["components"][:3]:
        assert each["low"] < each["share"] < each["high"]
    assert document["components"][document["above_noise"]]["cumulative"] is None
    lines = lines_of(spec, found)
    assert lines[0].startswith("synthetic: 16 agents, 1,000 steps each, d = 20")
    assert lines[-2].startswith("suggested rank: 3, the smallest that holds 99 % of what stands out; ")
    assert lines[-1].startswith("caveat: shares are of the variance over all states; if no action changes a part")


def test_the_rank_of_the_queues_is_two_also_where_noise_hides_what_a_free_server_is_worth() -> None:
    spec, found = ranked("queues", 12, 100)
    assert (found.rank, found.overall) == (2, 2)
    noisy = lines_of(spec, found)
    assert noisy[-2].startswith(
        "suggested rank: 2, which the variance over all states takes; within equal exogenous"
    )
    assert noisy[-1].startswith("caveat: the noise (")
    assert noisy[-1].endswith("simulate more rounds or more agents")


def best_errors(rank: int) -> tuple[float, float]:
    """What the best subspace of the true values leaves out of their differences within hours: the median over the
    stations, and the worst station at seven in the morning."""
    sites = [make_station(index, 1).reference for index in range(20)]
    within = [within_hours(index, 1) for index in range(20)]
    known = [(site.weights, site.covariance) for site in sites if site is not None]
    metric = np.mean([hours.mean(axis=0) for hours in within], axis=0) + 1e-9 * np.eye(len(known[0][0]))
    root = np.linalg.cholesky(metric)
    scaled = [root.T @ z / np.sqrt(z @ hours.mean(axis=0) @ z) for (z, _), hours in zip(known, within, strict=True)]
    basis = np.linalg.solve(root.T, np.linalg.svd(np.stack(scaled, axis=1))[0][:, :rank])
    lost = []
    for (z, covariance), hours in zip(known, within, strict=True):
        away = basis @ np.linalg.solve(basis.T @ covariance @ basis, basis.T @ covariance @ z) - z
        lost.append([away @ C @ away / (z @ C @ z) for C in (hours.mean(axis=0), hours[7])])
    return float(np.median(lost, axis=0)[0]), float(np.max(lost, axis=0)[1])


@pytest.fixture(scope="module")
def stations() -> dict[bool, tuple[Any, Ranking]]:
    """Twenty bike stations, without a word on the clock and with it declared."""
    found = {}
    for workload in (blind, bikes):
        spec = specify(workload, agents=20, rounds=100, seed=1)
        found[workload is bikes] = spec, ranking_of(simulate_agents(workload, spec), 0.99)
    return found


def test_a_clock_that_holds_nearly_all_variance_does_not_hide_what_decisions_need(stations: Any) -> None:
    _, undeclared = stations[False]
    spec, declared = stations[True]
    assert undeclared.rank <= 3 < declared.rank
    worse, better = best_errors(undeclared.rank), best_errors(declared.rank)
    assert worse[0] > 0.05
    assert worse[1] > 0.5, "no subspace of that many dimensions tells what a bike is worth at 7"
    assert better[0] < 0.05
    assert better[1] < 0.3
    lines = lines_of(spec, declared)
    assert lines[0].endswith("shares of the variance of the value functions within equal exogenous parts")
    assert not declared.hidden
    assert not any("declare it" in line for line in lines)


def test_an_undeclared_clock_is_told_with_the_rank_that_it_would_take(stations: Any) -> None:
    (spec, undeclared), (_, declared) = stations[False], stations[True]
    clock = undeclared.hidden[0]
    assert (clock.parts, clock.rank) == ("observation[0]", declared.rank)
    assert clock.explained > 0.95
    caveat = lines_of(spec, undeclared)[-1]
    assert caveat.startswith("caveat: the rank may be too small for decisions. observation[0] explains 9")
    assert caveat.endswith(f"declare it (Workload.exogenous), or take rank {declared.rank}")
    document = rank_document(spec, undeclared)
    assert (document["within_exogenous"], document["hidden"][0]["rank"]) == (False, declared.rank)


def test_fewer_agents_than_features_and_the_same_bits_again() -> None:
    _, found = ranked("synthetic", 3, 40)
    assert len(found.spectrum.values) == len(found.low) == len(found.high) == 6
    _, again = ranked("synthetic", 3, 40)
    assert (found.agreement, found.low.tobytes()) == (again.agreement, again.low.tobytes())


def test_where_all_is_noise_no_rank_is_suggested() -> None:
    spec, found = ranked("synthetic", 3, 4)
    nothing = dataclasses.replace(found, spectrum=Spectrum(np.array([0.1, -0.2])), rank=0)
    assert rank_document(spec, nothing)["rank"] is None
    assert lines_of(spec, nothing)[-2].startswith("suggested rank: none, because no component exceeds the noise")


@pytest.mark.parametrize(
    ("flags", "share", "says"),
    [
        ({"agents": "1"}, 0.99, "agents is 1; a subspace is what several agents share, so it must be 2 or more"),
        ({"rounds": "1"}, 0.99, "rounds is 1; each agent estimates its values from two halves"),
        ({"rounds": "0"}, 0.99, "rounds is 0"),
        ({}, 0.0, "share is 0.0; it must be above 0, at most 1"),
        ({}, 1.5, "share is 1.5"),
    ],
)
def test_what_cannot_be_is_refused(flags: dict[str, str], share: float, says: str) -> None:
    with pytest.raises(InvalidValueError) as failure:
        rank_here("synthetic", share, flags, None)
    assert says in str(failure.value)


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InvalidValueError, match=r"cospan rank needs scipy; pip install '\.\[study\]'"):
        rank_here("synthetic", 0.99, {}, None)


def test_defaults_suit_the_workload(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []

    def no_agents(_workload: object, spec: Any, _say: object) -> FleetSamples:
        seen.append((spec.agents, spec.rounds))
        return FleetSamples([], np.eye(spec.feature_dim))

    _, found = ranked("synthetic", 3, 4)
    monkeypatch.setattr(rank, "simulate_agents", no_agents)
    monkeypatch.setattr(rank, "ranking_of", lambda _estimates, _share: found)
    for workload in ("queues", "microgrids"):
        assert rank_here(workload, 0.99, {}, None, quiet=True) == 0
    assert seen == [(40, 300), (25, 300)]
    assert capsys.readouterr().out.count("suggested rank") == 2
