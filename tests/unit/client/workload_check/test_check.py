"""`check`: a sound workload has no finding, and each broken promise has one of its own, with place and remedy."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from tank_sites import FULL, Tank, switch, workload

from cospan.client.features import OneHotFeatures, RadialBasisFeatures
from cospan.client.workload import FeatureMap, Site, Workload
from cospan.client.workload_check.check import check
from cospan.client.workload_check.findings import CheckReport, Severity
from cospan.client.workloads import BUILT_IN
from cospan.wire.errors import InvalidValueError, WorkloadBehaviourError, WorkloadError

STEPS = 300
COUNTER = itertools.count(1)
"""Stands for a clock or a global generator: it gives no number twice."""


def overriding(**methods: Any) -> Callable[[], Any]:
    """A tank with other methods or attributes."""
    return type("Broken", (Tank,), methods)


def found(report: CheckReport, severity: Severity) -> dict[str, str]:
    return {finding.rule: str(finding) for finding in report if finding.severity is severity}


def test_a_sound_workload_has_no_finding() -> None:
    report = check(workload(), steps=STEPS)
    assert not report.findings, report
    assert report.ok
    assert str(report) == "workload 'tanks': no problem, no warning in 300 steps of 3 sites"
    report.raise_problems()


def test_an_environment_may_write_into_one_array() -> None:
    buffer = np.zeros(1)

    def seen(self: Tank) -> np.ndarray:
        buffer[0] = self.level
        return buffer

    report = check(workload(overriding(seen=seen)), sites=1, steps=STEPS)
    assert not report.findings, report


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_workloads_have_no_problem(name: str) -> None:
    report = check(name, sites=2, steps=200)
    assert report.ok, report
    assert {finding.rule for finding in report.warnings} <= {"feature-dead", "markov"}, report


def after(steps: int, then: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Callable[..., Any]:
    """A `step` whose answer is another one from some step on."""

    def step(self: Any, action: Any) -> Any:
        self.taken = getattr(self, "taken", 0) + 1
        answer = Tank.step(self, action)
        return then(answer) if self.taken > steps else answer

    return step


def raising(*_: Any) -> Any:
    raise OSError("no simulator")


class Map:
    """A feature map that gives what it is told for a level."""

    def __init__(self, of: Callable[[np.ndarray], np.ndarray], dim: int = 2, fingerprint: str = "map") -> None:
        self.of, self.dim, self.fingerprint = of, dim, fingerprint

    def batch(self, observations: Any) -> np.ndarray:
        return self.of(np.array(observations, dtype=np.float64).reshape(len(observations), -1)[:, 0])

    def __call__(self, observation: Any) -> np.ndarray:
        return self.batch([observation])[0]


class Drifting(Map):
    """One observation gives other features than its row of a batch."""

    def __call__(self, observation: Any) -> np.ndarray:
        return self.batch([observation])[0] + 1e-3


class Writing(Map):
    """Scales the observation in its place."""

    def batch(self, observations: Any) -> np.ndarray:
        values = super().batch(observations)
        for observation in observations:
            np.multiply(observation, 0.5, out=observation)
        return values


def columns(*parts: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda levels: np.stack([np.broadcast_to(part(levels), levels.shape) for part in parts], axis=1)


def rising(levels: np.ndarray) -> np.ndarray:
    return levels / 15.0


def square(levels: np.ndarray) -> np.ndarray:
    return np.square(levels / 15.0)


def no_radius(levels: np.ndarray) -> np.ndarray:
    return np.full(levels.shape, np.nan)


P, W, N = Severity.PROBLEM, Severity.WARNING, Severity.NOTE
BROKEN = {
    "reset is no pair": (
        workload(overriding(reset=lambda self, **_: self.seen())),
        (P, "reset-contract", r"site 0: `reset` returned array\(\[10\.?\]\), which is no \(observation, info\)"),
    ),
    "reset raises": (workload(overriding(seen=raising)), (P, "no-exception", "site 0, reset: .*no simulator")),
    "step raises": (
        workload(overriding(step=after(7, raising))),
        (P, "no-exception", r"site 0, step 7: `step` raised for the action [01]: OSError: no simulator"),
    ),
    "step has four values": (
        workload(overriding(step=after(7, lambda answer: answer[:4]))),
        (P, "step-contract", "site 0, step 7: `step` returned .*; return these five values"),
    ),
    "the reward is nan": (
        workload(overriding(step=after(7, lambda answer: (answer[0], np.nan, *answer[2:])))),
        (P, "reward-finite", "site 0, step 7: the reward is nan; make every reward a finite number"),
    ),
    "the reward is text": (
        workload(overriding(step=after(7, lambda answer: (answer[0], "much", *answer[2:])))),
        (P, "reward-number", "site 0, step 7: the reward is 'much', which is no number"),
    ),
    "the reward never changes": (
        workload(overriding(step=after(0, lambda answer: (answer[0], 1.0, *answer[2:])))),
        (W, "reward-varies", "site 0: all 300 rewards are 1, so all values are 0"),
    ),
    "an observation is nan": (
        workload(overriding(step=after(7, lambda answer: (np.array([np.nan]), *answer[1:])))),
        (P, "observation-finite", r"site 0, step 7: the observation array\(\[nan\]\) has an entry that is not"),
    ),
    "observations leave their space": (
        workload(overriding(observation_space=gymnasium.spaces.Box(0.0, 5.0, (1,), np.float64))),
        (
            W,
            "observation-space",
            r"site 0, reset: the observation array\(\[10\.?\]\) of shape \(1,\) .* is outside",
        ),
    ),
    "episodes end": (
        workload(overriding(step=after(0, lambda answer: (*answer[:2], True, False, {})))),
        (W, "never-ends", "site 0: 300 of 300 steps are a true end"),
    ),
    "a time limit": (
        workload(overriding(step=after(290, lambda answer: (*answer[:2], False, True, {})))),
        (N, "never-ends", "site 0: 10 of 300 steps are at a time limit"),
    ),
    "the chain gets stuck": (
        workload(policy=lambda observation, rng: 0),
        (W, "recurrent", "site 0: the observation does not change from step [0-9]+ to step 300"),
    ),
    "actions leave their space": (
        workload(policy=lambda observation, rng: 2 * switch(observation, rng)),
        (P, "action-space", r"the policy took an action outside its action_space Discrete\(2\): 2; correct"),
    ),
    "the policy raises": (
        workload(policy=raising),
        (P, "no-exception", "site 0, step 0: the policy raised: OSError: no simulator"),
    ),
    "the policy keeps a state": (
        workload(policy=lambda observation, rng: next(COUNTER) % 2),
        (W, "policy-function", "two actions for one observation and one state of its generator"),
    ),
    "a site depends on the clock": (
        workload(overriding(step=after(3, lambda answer: (answer[0], float(next(COUNTER)), *answer[2:])))),
        (P, "deterministic", r"site 0: made twice from seed 0 and index 0, the site differs: the reward of step 3"),
    ),
    "reset keeps a part of the state": (
        workload(overriding(step=after(STEPS, lambda answer: (answer[0], answer[1] - 1.0, *answer[2:])))),
        (W, "reset-forgets", "after a reset with the same seed the site plays otherwise .* reward of step 0"),
    ),
    "a state is saved in part": (
        workload(overriding(save_state=lambda self: {"level": 3.0})),
        (P, "resumable", "site 0: restored from its saved state, the chain differs [0-9] steps later; save all"),
    ),
    "a state is not plain": (
        workload(overriding(save_state=lambda self: {"level": self.level, "self": self})),
        (P, "resumable", "site 0: the state cannot be saved: TypeError: it has a .*Broken"),
    ),
    "a state cannot be loaded": (
        workload(overriding(load_state=raising)),
        (P, "resumable", r"site 0: the state of its environment cannot be loaded \(OSError"),
    ),
    "no state is saved": (
        workload(overriding(save_state=None, load_state=None)),
        (N, "resumable", "site 0: the environment cannot save its state"),
    ),
    "a norm above one": (
        workload(features=Map(columns(lambda levels: levels, square))),
        (P, "feature-contract", "gave a vector of norm 10.0.* for the observation .*; norms must not exceed 1"),
    ),
    "features that are not finite": (
        workload(features=Map(columns(no_radius, square))),
        (P, "feature-contract", "gave an entry that is not finite"),
    ),
    "another length": (
        workload(features=Map(columns(rising), dim=2)),
        (P, "feature-contract", "its dimension is 2"),
    ),
    "tiny features": (
        workload(features=Map(columns(lambda levels: rising(levels) / 50.0, square, lambda levels: 0.0), dim=3)),
        (N, "feature-dead", "all sites: 1 of 3 features are 0 at every visited state: 2"),
    ),
    "small norms": (
        workload(features=Map(columns(lambda levels: rising(levels) / 50.0, lambda levels: square(levels) / 50.0))),
        (W, "feature-norm", "the largest norm of a feature vector is 0.0.*, far below 1"),
    ),
    "a batch of one differs": (
        workload(features=Drifting(columns(rising, square))),
        (P, "feature-batch", "site 0, step 0: the features of one observation differ from its row .* by 0.001"),
    ),
    "the map writes": (
        workload(features=Writing(columns(rising, square))),
        (P, "feature-contract", "site 0: the feature map writes into the observation"),
    ),
    "the map fails beyond what is visited": (
        workload(
            overriding(observation_space=gymnasium.spaces.Box(0.0, 100.0, (1,), np.float64)),
            features=Map(columns(rising, square)),
        ),
        (W, "feature-space", "observations drawn from its space gave a vector of norm"),
    ),
    "a constant feature": (
        workload(features=Map(columns(rising, lambda levels: 0.5))),
        (P, "feature-constant", "site 0: a constant function is in the span of the features: over .*; leave out"),
    ),
    "features that never change": (
        workload(features=Map(columns(lambda levels: 0.5, lambda levels: 0.2))),
        (W, "feature-span", "site 0: the features are the same at every step"),
    ),
    "features that follow from others": (
        workload(features=Map(columns(rising, lambda levels: 0.5 * rising(levels), square), dim=3)),
        (W, "feature-dependent", "all sites: over .* different states 3 features have rank 2.*; leave out 1 of"),
    ),
    "no feature is used": (
        workload(features=Map(columns(lambda levels: 0.0, lambda levels: 0.0))),
        (P, "feature-dead", "all sites: all features are 0 at every visited state"),
    ),
    "a rank above d": (workload(rank=9), (P, "settings", "the workload: rank is 9, and there are 5 features")),
    "a rank above d / 2": (workload(rank=3), (W, "settings", "there are 5 features for rank 3, fewer than twice")),
    "no rank": (workload(rank=0), (P, "settings", "the workload: rank is 0; give 1 or more")),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_found(case: str) -> None:
    broken, (severity, rule, words) = BROKEN[case]
    report = check(broken, sites=1, steps=STEPS)
    sentences = found(report, severity)
    assert rule in sentences, f"{case}: {report}"
    assert re.search(words, sentences[rule]), sentences[rule]
    assert sentences[rule].startswith(f"{severity.value}: ")
    assert report.ok is (severity is not P), report


class Slow(Tank):
    """Demand persists for days, which is not observed."""

    def __init__(self) -> None:
        super().__init__()
        self.dry = False

    def step(self, action: Any) -> Any:
        if self.np_random.random() < 0.02:
            self.dry = not self.dry
        observation, reward, *rest = super().step(action)
        return (observation, reward - 3.0 * self.dry, *rest)


def test_what_persists_and_is_not_observed_is_hinted_at() -> None:
    report = check(workload(Slow), sites=1, steps=2000)
    assert "TD errors one step apart have a correlation of 0." in found(report, W)["markov"]
    assert "markov" not in found(check(workload(), sites=1, steps=2000), W)


def test_sites_that_are_copies_are_reported() -> None:
    class Clockwork(Tank):
        def step(self, action: Any) -> Any:
            self.level = self.level - 1.0 if self.level >= 1.0 else FULL
            return self.seen(), -self.level, False, False, {}

    copies = workload(Clockwork, features=RadialBasisFeatures([0.0], [FULL], 4))
    assert "all 3 sites play exactly alike" in found(check(copies, steps=STEPS), W)["sites-differ"]
    assert "sites-differ" not in found(check(workload(), steps=STEPS), W)


def with_maps(make_map: Callable[[int], FeatureMap]) -> Workload:
    sound = workload()
    return replace(
        sound, make_site=lambda index, seed: replace(sound.make_site(index, seed), features=make_map(index))
    )


def test_maps_of_sites_must_be_the_same() -> None:
    boxes = with_maps(lambda index: RadialBasisFeatures([0.0], [FULL + index], 6))
    sentence = found(check(boxes, sites=2, steps=STEPS), P)["feature-fingerprint"]
    assert sentence.startswith("problem: site 1: the feature map is 'rbf-")
    equal_names = with_maps(lambda index: Map(columns(lambda levels: levels / (15.0 + index), square)))
    sentence = found(check(equal_names, sites=2, steps=STEPS), P)["feature-fingerprint"]
    assert "the feature maps of site 0 and site 1 have one fingerprint, 'map', and differ" in sentence
    by_address = with_maps(lambda index: Map(columns(rising, square), fingerprint=f"map-{next(COUNTER)}"))
    sentence = found(check(by_address, sites=1, steps=STEPS), P)["feature-fingerprint"]
    assert "made twice, the site has two fingerprints" in sentence


def test_a_finite_space_is_looked_at_as_a_whole() -> None:
    """One more state than features cannot be told from few data; the space tells."""

    class Counter(Tank):
        observation_space = gymnasium.spaces.Discrete(6)

        def seen(self) -> Any:
            return int(min(self.level / 2.0, 5.0))

    def policy(observation: Any, rng: np.random.Generator) -> int:
        return int(observation < 3)

    sound = check(workload(Counter, OneHotFeatures(6), policy), sites=1, steps=STEPS)
    assert not found(sound, P), sound
    assert "feature-span" not in found(sound, N)
    every_state = Map(lambda states: np.eye(6)[states.astype(int)], dim=6)
    assert "feature-constant" in found(check(workload(Counter, every_state, policy), sites=1, steps=STEPS), P)


def test_make_fleet_must_give_the_same_chains() -> None:
    queues = check("queues", sites=2, steps=100)
    assert queues.ok
    from cospan.client.environment.workload_loader import load_workload

    loaded = load_workload("queues")
    assert loaded.make_fleet is not None
    shifted = replace(
        loaded, make_fleet=lambda indices, seed: loaded.make_fleet([index + 1 for index in indices], seed)
    )
    sentence = found(check(shifted, sites=2, steps=100), P)["make-fleet"]
    assert sentence.startswith("problem: site 0: stepped with others by make_fleet, the site plays otherwise")
    failing = replace(loaded, make_fleet=raising)
    assert "OSError: no simulator" in found(check(failing, sites=2, steps=100), P)["make-fleet"]


def test_a_site_that_cannot_be_made_is_a_finding_and_the_others_are_checked() -> None:
    sound = workload()

    def make_site(index: int, seed: int) -> Site:
        if index == 1:
            raise RuntimeError("no licence")
        return sound.make_site(index, seed)

    report = check(replace(sound, make_site=make_site), sites=[0, 1, 2], steps=STEPS)
    assert [finding.where for finding in report.problems] == ["site 1"]
    assert "failed to make site 1: RuntimeError: no licence" in str(report)
    with pytest.raises(WorkloadBehaviourError, match="no licence"):
        report.raise_problems()


def test_every_site_is_closed() -> None:
    made: list[Tank] = []

    def env() -> Tank:
        made.append(Tank())
        return made[-1]

    check(workload(env), sites=2, steps=STEPS)
    check(workload(overriding(step=raising)), sites=1, steps=STEPS)
    assert len(made) >= 6
    assert [tank.closed for tank in made] == [1] * len(made)


def test_sites_and_steps_are_checked() -> None:
    for sites in (0, -1, 1001):
        with pytest.raises(InvalidValueError, match=f"sites is {sites}; a check takes 1 to 1000"):
            check(workload(), sites=sites)
    with pytest.raises(InvalidValueError, match="sites is empty"):
        check(workload(), sites=[])
    with pytest.raises(InvalidValueError, match="steps is 1; a check needs at least 2"):
        check(workload(), steps=1)
    with pytest.raises(WorkloadError, match="there is no workload 'tanks'"):
        check("tanks")
    assert check(workload(max_agents=2), sites=5, steps=STEPS).sites == (0, 1)
    assert check(workload(), sites=[7], steps=2).sites == (7,)
