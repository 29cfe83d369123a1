"""Metrics of a run: their numbers and their bounds."""

from dataclasses import replace

import pytest
from private_runs import private
from runs import join, specification
from unit.server.runtime.test_engine import Fleet

from cospan.server.admission.interceptor import AdmissionInterceptor
from cospan.server.machine import events, initial_state
from cospan.server.machine.state import CoordinatorConfig, CoordinatorState
from cospan.server.telemetry import metrics
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.server.telemetry.counters import ROUND_SECONDS, Counters
from cospan.server.telemetry.metric_catalogue import MOST_NAMED
from cospan.server.telemetry.metrics import Subject, registry_of
from cospan.wire.errors import RateLimitedError
from cospan.wire.security.identity import without_certificate

STRANGER = without_certificate(address="ipv4:10.0.0.7:4242")


class Scraped:
    """A fleet with metrics."""

    def __init__(self, *agents: str, **changes: object) -> None:
        self.fleet = Fleet(*agents, **changes)
        self.counts = Counters()
        self.counts.listen(self.fleet.engine)
        self.door = AdmissionInterceptor(2, frozenset(), frozenset())
        self.agent_stats = AgentStats()
        self.registry = registry_of(Subject(self.fleet.engine, self.door, self.counts, self.agent_stats))

    def play(self, number: int, *agents: str, seconds: float = 0.02) -> None:
        self.fleet.clock.now += seconds
        for agent in agents:
            self.fleet.send(agent, number)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def scraped() -> Scraped:
    return Scraped("a", "b", rounds=0)


def test_a_run_that_has_not_begun_has_no_numbers_of_rounds(scraped: Scraped) -> None:
    fresh = Scraped(rounds=0)
    assert fresh.value("cospan_run_phase", phase="waiting") == 1
    assert fresh.value("cospan_rounds_total") == 0
    assert fresh.value("cospan_basis_movement") is None, "not 0: nothing has moved yet, or stood still"


def test_rounds_are_counted_with_their_durations(scraped: Scraped) -> None:
    for number, seconds in enumerate((0.02, 0.02, 3.0, 99.0)):
        scraped.play(number, "a", "b", seconds=seconds)
    assert scraped.value("cospan_rounds_total") == 4
    assert scraped.value("cospan_round") == 4
    assert scraped.value("cospan_contributions_total") == 8
    assert scraped.value("cospan_round_contributors") == 2
    assert scraped.value("cospan_round_duration_seconds_bucket", le="0.025") == 2
    assert scraped.value("cospan_round_duration_seconds_bucket", le="5.0") == 3
    assert scraped.value("cospan_round_duration_seconds_bucket", le="60.0") == 3
    assert scraped.value("cospan_round_duration_seconds_bucket", le="+Inf") == 4
    assert scraped.value("cospan_round_duration_seconds_sum") == pytest.approx(102.04)
    assert len(scraped.counts.by_duration) == len(ROUND_SECONDS) + 1


def test_missed_contributions_and_outliers_are_counted(scraped: Scraped) -> None:
    scraped.play(0, "a", "b")
    told = scraped.counts.newest
    assert told is not None
    for absent, outliers in ((("a",), ()), (("a", "b"), ("c", "d", "e"))):
        report = replace(told, absent_agent_ids=absent, outlier_agent_ids=outliers)
        scraped.counts.round(events.ReportRound(report, 0.0))
    assert scraped.value("cospan_missed_contributions_total") == 3
    assert scraped.value("cospan_outliers_total") == 3


def test_who_is_waited_for_is_named_with_its_silence(scraped: Scraped) -> None:
    scraped.play(0, "a", seconds=3.0)
    assert scraped.value("cospan_waiting_for_agents") == 1
    assert scraped.value("cospan_waiting_for_agent_silent_seconds", agent="b") == 3.0
    assert scraped.value("cospan_waiting_for_agent_silent_seconds", agent="a") is None
    assert scraped.value("cospan_phase_seconds") == 3.0


def test_feeds_that_are_silent_are_named(scraped: Scraped) -> None:
    state, now = scraped.fleet.engine.state, scraped.fleet.clock.now
    scraped.agent_stats.note_feed(state, "token of a", 90.0, now)
    assert scraped.value("cospan_feed_silent_seconds", agent="a") == 90.0
    scraped.agent_stats.note_feed(state, "token of a", 0.0, now)
    assert scraped.value("cospan_feed_silent_seconds", agent="a") is None


def test_the_fleet_is_counted_by_where_it_stands(scraped: Scraped) -> None:
    scraped.fleet.break_stream("b")
    assert scraped.value("cospan_agents", phase="connected") == 1
    assert scraped.value("cospan_agents", phase="lost") == 1
    assert scraped.value("cospan_disconnects_total") == 1
    scraped.fleet.engine.handle(events.LeaveArrived("token of a", "it is late", returning=False))
    assert scraped.value("cospan_agents", phase="gone") == 1
    assert scraped.value("cospan_departures_total") == 1


def test_what_was_turned_away_is_counted_by_reason(scraped: Scraped) -> None:
    scraped.play(0, "a", "b")
    scraped.fleet.send("a", 0)
    scraped.door.count(RateLimitedError("too often"), STRANGER)
    assert scraped.value("cospan_gradients_rejected_total", reason="duplicate") == 1
    assert scraped.value("cospan_rejected_requests_total", reason="RATE_LIMITED") == 1
    assert scraped.value("cospan_rejected_requests_total", reason="INTERNAL") == 0, (
        "there from the beginning, to rise from 0"
    )


def test_the_bytes_to_agents_are_those_that_were_queued(scraped: Scraped) -> None:
    waiting = sum(len(data) for stream in scraped.fleet.streams.values() for data, _ in stream.outbox)
    assert scraped.value("cospan_sent_bytes_total") == waiting > 0


def test_the_number_of_series_does_not_grow_with_the_fleet() -> None:
    def series(count: int) -> int:
        registry = Scraped(*(f"site-{index}" for index in range(count)), rounds=0).registry
        return sum(len(family.samples) for family in registry.collect())

    assert series(100) == series(200) <= series(1) + MOST_NAMED


def test_a_group_is_named_once(scraped: Scraped) -> None:
    stream = scraped.fleet.engine.streams.open()
    members = join(*(f"site-{index:02}" for index in range(50)))
    scraped.fleet.engine.handle(events.JoinRequested(members, stream.number, "token of all"))
    assert scraped.value("cospan_waiting_for_agents") == 50 + 2
    named = metrics.longest_silent(scraped.fleet.engine.state, scraped.fleet.clock.now)
    assert sorted(agent for _, agent in named) == ["a", "b", "site-00"]


# Over HTTP ----------------------------------------------------------------------------------------------------


def test_a_privacy_budget_is_shown() -> None:
    """Of a run that waits for its fleet nothing is spent; a run without a budget has zeros."""

    def shown(state: CoordinatorState) -> list[float]:
        families = {family.name: family.samples[0].value for family in metrics._of_state(state, 0.0)}
        return [families[f"cospan_privacy_{name}"] for name in ("epsilon_promised", "epsilon_spent", "vectors")]

    config = CoordinatorConfig("run-1", 1, 600.0)
    begun = initial_state(private(), config, 0.0)
    assert shown(begun) == [8.0, 0.0, 0.0]
    promised, spent, vectors = shown(begun.evolve(round=5))
    assert (promised, vectors) == (8.0, 5.0)
    assert 5.0 < spent < 5.5
    assert shown(initial_state(specification(), config, 0.0)) == [0.0, 0.0, 0.0]
