"""The microgrids: energy is conserved, days are the site's own, and the shipped reference is theirs."""

from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from hypothesis import given
from hypothesis import strategies as st

from cospan.client.workload import Site
from cospan.client.workloads import microgrids
from cospan.client.workloads.microgrids import (
    CHARGE,
    FEATURES,
    GRID_UP,
    HOUR,
    NET_LOAD,
    NET_LOAD_BOUND,
    OUTLOOK,
    BatteryFirst,
    MicrogridEnv,
    outlook,
    workload,
)
from cospan.client.workloads.models.microgrids import (
    HOURS,
    MANY,
    ONE,
    Microgrid,
    Profiles,
    battery_first,
    dispatch,
    hourly_cost,
    load_site,
    site_count,
)
from cospan.client.workloads.references import microgrids as microgrids_reference
from cospan.client.workloads.references import solutions
from cospan.core.exact_solutions import ReferenceSolution

GRID = Microgrid(
    mean_load=100.0,
    usable=4.0,
    max_charge=1.0,
    max_discharge=0.5,
    efficiency=0.8,
    cycle_cost=0.02,
    max_import=1.5,
    max_export=0.25,
    genset_max=1.0,
    genset_min=0.2,
    genset_cost=0.6,
    loss_of_load_cost=10.0,
    overgeneration_cost=1.0,
)
"""A made-up site with everything."""


def reference_of(site: Site) -> ReferenceSolution:
    """The site's reference, which every site has."""
    assert site.reference is not None
    return site.reference


def flows_of(level: float, action: float, net_load: float, grid_up: float) -> dict[str, float]:
    """The flows of `GRID` that are not zero."""
    flows = dispatch(GRID, level, action, net_load, grid_up, by=ONE)._asdict()
    return {name: pytest.approx(value) for name, value in flows.items() if value != 0.0}


@pytest.mark.parametrize(
    ("level", "action", "net_load", "grid_up", "expected"),
    [
        (2.0, 0.0, 1.0, 1.0, {"imported": 1.0}),
        (2.0, 0.0, 2.2, 1.0, {"imported": 1.5, "generated": 0.7}),
        (2.0, 0.0, 1.6, 1.0, {"imported": 1.5, "generated": 0.2, "curtailed": 0.1}),  # runs at its least power
        (2.0, 0.0, 1.3, 0.0, {"generated": 1.0, "unserved": 0.3}),
        (2.0, 0.0, -1.0, 1.0, {"exported": 0.25, "curtailed": 0.75}),
        (2.0, 0.0, -1.0, 0.0, {"curtailed": 1.0}),
        (2.0, 0.5, -1.0, 0.0, {"charge": 0.5, "stored_change": 0.4, "curtailed": 0.5}),
        (3.9, 1.0, -1.0, 0.0, {"charge": 0.125, "stored_change": 0.1, "curtailed": 0.875}),  # full
        (2.0, -1.0, 1.0, 1.0, {"discharge": 0.5, "stored_change": -0.625, "imported": 0.5}),
        (0.1, -1.0, 1.0, 1.0, {"discharge": 0.08, "stored_change": -0.1, "imported": 0.92}),  # empty
        (2.0, 1.0, 0.5, 1.0, {"charge": 1.0, "stored_change": 0.8, "imported": 1.5}),
    ],
)
def test_one_hour_by_hand(
    level: float, action: float, net_load: float, grid_up: float, expected: dict[str, float]
) -> None:
    assert flows_of(level, action, net_load, grid_up) == expected


def test_cost_by_hand() -> None:
    flows = dispatch(GRID, 2.0, -1.0, 3.5, 1.0, by=ONE)  # ½ from the battery, 1½ bought, 1 generated, ½ lost
    cost = 1.5 * 0.3 + 1.0 * 0.6 + 0.625 * 0.02 + 0.5 * 10.0
    assert hourly_cost(GRID, flows, 0.3, 0.07) == pytest.approx(cost)
    flows = dispatch(GRID, 2.0, 0.0, -1.0, 1.0, by=ONE)
    assert hourly_cost(GRID, flows, 0.3, 0.07) == pytest.approx(-0.25 * 0.07 + 0.75 * 1.0)


sites = st.builds(lambda index: load_site(index)[0], st.integers(0, site_count() - 1))


@given(sites, st.floats(0.0, 1.0), st.floats(-1.0, 1.0), st.floats(-4.0, 4.0), st.sampled_from([0.0, 1.0]))
def test_energy_is_conserved_within_the_limits(
    grid: Microgrid, charge: float, action: float, net_load: float, grid_up: float
) -> None:
    """Load less sun, plus what the battery takes, is met or lost; nothing is negative, nothing above its limit."""
    level = charge * grid.usable
    flows = dispatch(grid, level, action, net_load, grid_up, by=ONE)
    supplied = flows.imported + flows.generated + flows.discharge + flows.unserved
    used = net_load + flows.charge + flows.exported + flows.curtailed
    assert supplied == pytest.approx(used, abs=1e-12)
    assert min(flows._replace(stored_change=0.0)) >= 0.0
    assert flows.charge <= grid.max_charge
    assert flows.discharge <= grid.max_discharge
    assert flows.imported <= grid.max_import * grid_up
    assert flows.exported <= grid.max_export * grid_up
    assert flows.generated <= grid.genset_max
    assert flows.generated == 0.0 or flows.generated >= grid.genset_min
    stored = flows.charge * grid.efficiency - flows.discharge / grid.efficiency
    assert flows.stored_change == pytest.approx(stored, abs=1e-12)
    assert -1e-12 <= level + flows.stored_change <= grid.usable + 1e-12
    assert flows.charge * flows.discharge == 0.0
    assert flows.unserved == 0.0 or flows.generated == grid.genset_max


@given(sites, st.floats(0.0, 1.0), st.floats(-4.0, 4.0))
def test_battery_first_leaves_nothing_to_others_that_the_battery_could_do(
    grid: Microgrid, charge: float, net_load: float
) -> None:
    action = battery_first(grid, net_load, by=ONE)
    assert -1.0 <= action <= 1.0
    level = charge * grid.usable
    flows = dispatch(grid, level, action, net_load, 0.0, by=ONE)
    rest = net_load + flows.charge - flows.discharge
    if rest > 1e-9:
        empty = level + flows.stored_change < 1e-9
        assert empty or flows.discharge == pytest.approx(grid.max_discharge)
    if rest < -1e-9:
        full = level + flows.stored_change > grid.usable - 1e-9
        assert full or flows.charge == pytest.approx(grid.max_charge)


def test_formulas_for_many_are_the_formulas_for_one() -> None:
    rng = np.random.default_rng(0)
    level, action = rng.uniform(0.0, GRID.usable, 500), rng.uniform(-1.0, 1.0, 500)
    net_load, grid_up = rng.uniform(-4.0, 4.0, 500), rng.integers(2, size=500).astype(float)
    together = dispatch(GRID, level, action, net_load, grid_up, by=MANY)
    costs = hourly_cost(GRID, together, net_load, action)
    for k in range(500):
        alone = dispatch(GRID, float(level[k]), float(action[k]), float(net_load[k]), float(grid_up[k]), by=ONE)
        assert tuple(alone) == tuple(float(flow[k]) for flow in together)
        assert hourly_cost(GRID, alone, float(net_load[k]), float(action[k])) == float(costs[k])
        assert battery_first(GRID, float(net_load[k]), by=ONE) == battery_first(GRID, net_load, by=MANY)[k]


def test_outlook_is_the_rank_of_the_net_load_to_come() -> None:
    """Three days that differ in their last hours alone."""
    net_load = np.zeros((3, HOURS))
    net_load[:, 22] = [5.0, 1.0, 3.0]
    net_load[:, 23] = [0.0, 2.0, 2.0]
    none = np.zeros_like(net_load)
    ranks = outlook(Profiles(net_load=net_load, grid_up=none, import_cost=none, export_price=none))
    np.testing.assert_allclose(ranks[:, 0] * 6, [4.0, 1.0, 4.0])  # 5, 3 and 5 to come: equal ones share a rank
    np.testing.assert_allclose(ranks[:, 23] * 6, [1.0, 4.0, 4.0])


@pytest.mark.parametrize("index", range(site_count()))
def test_records_make_sense(index: int) -> None:
    """Every site can serve its load: it has a grid or a generator, and prices where it has a grid."""
    grid, profiles = load_site(index)
    assert profiles.net_load.shape == (365, HOURS)
    assert np.abs(profiles.net_load).max() < NET_LOAD_BOUND
    for series in (profiles.grid_up, profiles.import_cost, profiles.export_price):
        assert np.isfinite(series).all()
    connected = grid.max_import > 0.0
    assert connected == bool(profiles.grid_up.any())
    assert connected == bool((profiles.import_cost > 0.0).all())
    assert connected or grid.genset_max > profiles.net_load.max()
    assert 0.0 < grid.efficiency <= 1.0
    assert 2.0 < grid.usable < 5.0


def test_days_are_the_sites_own_in_random_order() -> None:
    """Each midnight starts a day of the site's year, hours in order, and days seldom follow their calendar."""
    site = workload.make_site(9, seed=0)
    _, profiles = load_site(9)
    days = {tuple(day): number for number, day in enumerate(profiles.net_load)}
    rng = np.random.default_rng(1)
    seen = []
    observation, _ = site.env.reset(seed=5)
    ranks = outlook(profiles)
    for _ in range(150):
        hours = []
        for hour in range(HOURS):
            assert observation[HOUR] == hour
            hours.append(observation)
            observation, *_ = site.env.step(site.policy(observation, rng))
        number = days[tuple(float(each[NET_LOAD]) for each in hours)]
        np.testing.assert_array_equal([each[OUTLOOK] for each in hours], ranks[number])
        np.testing.assert_array_equal([each[GRID_UP] for each in hours], profiles.grid_up[number])
        seen.append(number)
    steps = np.diff(seen)
    assert (steps == 1).sum() <= 3
    assert len(set(seen)) > 100
    assert min(seen) < 60
    assert max(seen) > 300


def test_charge_and_reward_follow_the_model() -> None:
    """A site played hour by hour, and the same hours worked out from its records."""
    site = workload.make_site(24, seed=0)
    grid, profiles = load_site(24)
    rng = np.random.default_rng(3)
    observation, _ = site.env.reset(seed=4)
    days = {tuple(day): number for number, day in enumerate(profiles.net_load)}
    level = float(observation[CHARGE]) * grid.usable
    played: list[tuple[Any, Any, float]] = []
    for _ in range(20 * HOURS):
        action = np.array([rng.uniform(-1.2, 1.2)])  # beyond the limits is cut off
        after, reward, *_ = site.env.step(action)
        played.append((observation, float(np.clip(action[0], -1.0, 1.0)), float(reward)))
        observation = after
    for start in range(0, len(played), HOURS):
        day = days[tuple(float(each[0][NET_LOAD]) for each in played[start : start + HOURS])]
        for hour, (seen, action, reward) in enumerate(played[start : start + HOURS]):
            assert 0.0 <= seen[CHARGE] <= 1.0
            assert seen[CHARGE] == pytest.approx(level / grid.usable, abs=1e-12)
            flows = dispatch(grid, level, action, float(seen[NET_LOAD]), float(seen[GRID_UP]), by=ONE)
            cost = hourly_cost(
                grid, flows, float(profiles.import_cost[day, hour]), float(profiles.export_price[day, hour])
            )
            assert reward == pytest.approx(-cost, abs=1e-12)
            level += flows.stored_change


class Scripted(np.random.Generator):
    """Gives the numbers it was told, in their order."""

    def __init__(self, uniforms: list[float], integers: list[int]) -> None:
        super().__init__(np.random.PCG64(0))
        self._uniforms, self._integers = iter(uniforms), iter(integers)

    def random(self, *_: Any, **__: Any) -> Any:
        return next(self._uniforms)

    def integers(self, *_: Any, **__: Any) -> Any:
        return next(self._integers)


class Recording(np.random.Generator):
    """Keeps what it drew."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.uniforms: list[np.ndarray] = []
        self.days: list[np.ndarray] = []

    def random(self, *arguments: Any, **named: Any) -> Any:
        self.uniforms.append(super().random(*arguments, **named))
        return self.uniforms[-1]

    def integers(self, *arguments: Any, **named: Any) -> Any:
        self.days.append(super().integers(*arguments, **named))
        return self.days[-1]


@pytest.mark.parametrize("index", [1, 4, 20])
def test_the_simulator_for_many_plays_what_the_environment_plays(index: int) -> None:
    """The same draws give the same observations and rewards, bit for bit, in each of several chains."""
    recording = Recording(6)
    hours = list(microgrids_reference.simulate(index, chains=3, days=5, rng=recording))
    levels, *moves = recording.uniforms
    for chain in range(3):
        site = workload.make_site(index, seed=0)
        days = [int(day[chain]) for day in recording.days]
        site.env.np_random = Scripted([float(levels[chain])], [*days, 0])
        observation, _ = site.env.reset()
        for (expected, rewards), explore, move in zip(hours, moves[::2], moves[1::2], strict=True):
            np.testing.assert_array_equal(observation, expected[chain])
            action = site.policy(observation, Scripted([float(explore[chain]), float(move[chain])], []))
            observation, reward, *_ = site.env.step(action)
            assert reward == rewards[chain]


def test_a_share_of_the_moves_is_random() -> None:
    policy = BatteryFirst(GRID)
    rng = np.random.default_rng(0)
    observation = np.array([12.0, 0.5, 0.5, -0.3, 1.0])
    actions = np.array([policy(observation, rng)[0] for _ in range(4000)])
    greedy = np.isclose(actions, 0.3)
    assert greedy.mean() == pytest.approx(1.0 - microgrids.EXPLORATION, abs=0.02)
    assert np.ptp(actions[~greedy]) > 1.9


def test_features_interpolate_between_knots() -> None:
    """At a knot one feature is one; midway between two hours the two are one half each."""
    node = FEATURES(np.array([4.0, 1.0, 1.0, 0.3, 1.0]))
    assert sorted(node)[-2:] == pytest.approx([0.0, 1.0])
    between = FEATURES(np.array([5.0, 1.0, 1.0, -2.0, 0.0]))
    assert sorted(between)[-3:] == pytest.approx([0.0, 0.5, 0.5])
    assert between[np.argmax(node)] == pytest.approx(0.5)
    assert not FEATURES(np.zeros(5)).any()  # the knot that is left out


@pytest.mark.parametrize("index", [0, 13, 20])
def test_features_are_independent_where_the_site_goes(index: int) -> None:
    """And stay so with the constant among them."""
    rng = np.random.default_rng(index)
    hours = list(microgrids_reference.simulate(index, chains=60, days=12, rng=rng))
    rows = FEATURES.batch(np.concatenate([observations for observations, _ in hours[48:]]))
    rows = np.column_stack([rows, np.ones(len(rows))])
    moments = np.linalg.eigvalsh(rows.T @ rows)
    assert moments[0] > 1e-8 * moments[-1]


@pytest.mark.parametrize("index", [2, 9, 20])
def test_a_short_run_of_its_own_agrees_with_the_reference(index: int) -> None:
    """40,000 hours, independent of the shipped ones: two batches say how far off they may be."""
    reference = reference_of(workload.make_site(index, seed=0))
    batches = [
        microgrids_reference.least_squares(
            index, chains=100, days=10, burn_in_days=3, rng=np.random.default_rng(seed)
        )
        for seed in (11, 12)
    ]
    alone = [solutions.solve(batch) for batch in batches]
    pooled = {name: batches[0][name] + batches[1][name] for name in batches[0]}
    gain, weights, covariance = solutions.solve(pooled)
    uncertainty = 0.5 * abs(alone[0][0] - alone[1][0]) + reference.gain_uncertainty + 0.004
    assert abs(gain - reference.gain) < 4.0 * uncertainty
    apart = alone[0][1] - alone[1][1]
    spread = 0.25 * (apart @ covariance @ apart) / (weights @ covariance @ weights)
    assert reference.value_error(weights) < 4.0 * spread + 4.0 * reference.weights_uncertainty
    assert reference.value_error(weights) < 0.05
    assert np.linalg.norm(covariance - reference.covariance) < 0.1 * np.linalg.norm(covariance)


def test_reference_is_certain_enough_to_measure_against() -> None:
    """Its own error is far below any that a run is judged by."""
    for index in range(site_count()):
        reference = reference_of(workload.make_site(index, seed=0))
        assert 0.0 < reference.weights_uncertainty < 1e-3
        assert 0.0 < reference.gain_uncertainty < 0.01 * abs(reference.gain)
        assert np.linalg.eigvalsh(reference.covariance).min() > -1e-8
        np.testing.assert_array_equal(reference.covariance, reference.covariance.T)


def test_reference_of_other_features_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(FEATURES), "fingerprint", "hats-of-another-size")
    microgrids._references.cache_clear()
    try:
        with pytest.raises(RuntimeError, match=r"hats-of-another-size; make them again with `python -m"):
            workload.make_site(0, seed=0)
    finally:
        microgrids._references.cache_clear()


def test_fleet_basis_is_of_the_first_sites() -> None:
    assert workload.fleet_basis is not None
    weights = np.stack([reference_of(workload.make_site(index, 0)).weights for index in range(6)])
    basis = workload.fleet_basis(6, 6, 0)
    assert basis is not None
    assert basis.shape == (FEATURES.dim, 6)
    np.testing.assert_allclose(weights @ basis @ basis.T, weights, atol=1e-8)
    fewer = workload.fleet_basis(25, 3, 0)
    assert fewer is not None
    assert fewer.shape == (FEATURES.dim, 3)


@pytest.mark.parametrize("index", [-1, 25])
def test_no_such_site(index: int) -> None:
    with pytest.raises(ValueError, match=rf"microgrid {index} .*sites 0 to 24"):
        workload.make_site(index, seed=0)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ResetNeeded):
        MicrogridEnv(*load_site(0)).step(np.zeros(1))
