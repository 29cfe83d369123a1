"""What an agent has learnt, as something to ask: the value of an observation, and the mean reward per step.

It needs no network and no learner, and does not change. Nothing here imports gRPC.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.environment.rollout import checked_features
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.result_file import FORMAT as AGENT_FORMAT
from cospan.client.files.result_file import Learnt, check_format
from cospan.client.value_uncertainty import GainUncertainty, Interval, ValueUncertainty, check_coverage
from cospan.client.workload import AnySite, FeatureMap, Site, Workload
from cospan.client.workloads import BUILT_IN
from cospan.core.statistics import normal_quantile
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.files.npz import load_npz, save_npz

FORMAT = "cospan-value-function-2"


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class ValueFunction:
    """A learnt differential value function V̂(s) = φ(s)ᵀ ẑ, defined up to a constant, and the learnt gain.

        value = ValueFunction.load("runs/latest/agents/site-7.npz")
        value.value(observation); value.values(observations); value.gain
        value.interval(observation, other); value.gain_interval()

    Attributes:
        features: φ.
        weights: ẑ, shape (d,), averaged over the rounds.
        gain: the estimated mean reward per step, in the environment's unit.
        agent_id: whose it is; `index` and `label` of its site.
        index: 0 or more.
        label: a name of the site for people.
        workload: of the run.
        seed: of the run.
        steps: environment steps that it was learnt from.
        mean_reward: of all these steps; nan before the first.
        value_error: relative value error, 0 is perfect and 1 no better than zero; nan where the truth is unknown.
        gain_error: |gain − J|; nan where the truth is unknown.
        uncertainty: what the intervals of values are made of.
        gain_uncertainty: what that of the gain is made of.
    """

    features: FeatureMap
    weights: Float[np.ndarray, " d"]
    gain: float
    agent_id: str = ""
    index: int = 0
    label: str = ""
    workload: str = ""
    seed: int = 0
    steps: int = 0
    mean_reward: float = math.nan
    value_error: float = math.nan
    gain_error: float = math.nan
    uncertainty: ValueUncertainty = field(default_factory=lambda: ValueUncertainty(None))
    gain_uncertainty: GainUncertainty = field(default_factory=lambda: GainUncertainty(math.nan, 0))

    @classmethod
    def of_learner(cls, learner: Learnt, features: FeatureMap) -> "ValueFunction":
        """What a learner has learnt so far; it may go on, and this stays as it is.

        Args:
            learner: of one agent, alone or of a group.
            features: that it learns with.
        """
        spec = learner.specification
        return cls(
            features=features,
            weights=_read_only(learner.weights.mean),
            gain=float(learner.gain.mean[0]),
            agent_id=learner.name,
            index=learner.index,
            label=learner.label,
            workload=spec.workload,
            seed=spec.seed,
            steps=learner.state.steps,
            mean_reward=float(learner.mean_reward),
            value_error=float(learner.value_error()),
            gain_error=float(learner.gain_error()),
            uncertainty=ValueUncertainty.of_learner(learner),
            gain_uncertainty=GainUncertainty.of_learner(learner),
        )

    def value(self, observation: Any) -> float:
        """The estimated differential value of one observation; for many at once, see `values`.

        Raises:
            WorkloadBehaviourError: the feature map cannot take it.
        """
        return float(self.values([observation])[0])

    def values(self, observations: Sequence[Any] | np.ndarray) -> Float[np.ndarray, " n"]:
        """Those of several observations, shape (n,), with one call of the feature map.

        Raises:
            WorkloadBehaviourError: the feature map cannot take them.
        """
        if not len(observations):
            return np.zeros(0)
        rows = self._rows(observations)
        # One row after another: a product with the whole matrix may round otherwise than one with a single row.
        return np.array([row @ self.weights for row in rows])

    def interval(self, observation: Any, other: Any = None, *, coverage: float = 0.9) -> Interval:
        """An interval of the true V(observation) − V(other), about the estimated difference.

        V is defined up to a constant, so only differences have intervals. Without another observation it is that of
        V(observation) less the mean value over the states that the agent has visited.

        Args:
            observation: as for `value`.
            other: another one; None for the mean over the visited states.
            coverage: the probability that the interval holds the true number, above 0 and below 1. How far that is
                kept was measured, see docs/experiments/intervals.md.

        Raises:
            IntervalUnknownError: what was learnt does not tell how sure it is: it has another preset than
                `practical`, or has learnt nothing yet.
            InvalidValueError: the coverage is none.
            WorkloadBehaviourError: the feature map cannot take an observation.
        """
        lower, upper = self.intervals([observation], None if other is None else [other], coverage=coverage)[0]
        return Interval(float(lower), float(upper))

    def intervals(
        self,
        observations: Sequence[Any] | np.ndarray,
        others: Sequence[Any] | np.ndarray | None = None,
        *,
        coverage: float = 0.9,
    ) -> Float[np.ndarray, "n 2"]:
        """Those of several observations: lower and upper ends, shape (n, 2).

        Args:
            observations: as for `values`.
            others: as many; or one that all are compared with; or None. See `interval`.
            coverage: of each interval by itself, not of all together.

        Raises:
            See `interval`; and InvalidValueError where the numbers of observations differ.
        """
        check_coverage(coverage)
        spread = self.uncertainty.spread(self._whose)
        if not len(observations):
            return np.zeros((0, 2))
        if others is not None and len(others) not in {1, len(observations)}:
            raise InvalidValueError(
                f"there are {len(observations)} observations and {len(others)} others; give as many, or one"
            )
        differences = self._rows(observations) - (spread.visited if others is None else self._rows(others))
        middle = differences @ self.weights
        half = normal_quantile(coverage) * spread.deviations(differences)
        return np.stack([middle - half, middle + half], axis=-1)

    def gain_interval(self, *, coverage: float = 0.9) -> Interval:
        """An interval of the true gain, the mean reward per step in the long run.

        It lies about the mean of all rewards, which `gain` is with `practical`. Rewards of consecutive steps are
        correlated: the interval is made of batch means and Student's t (`RewardBatches`).

        Args:
            coverage: the probability that the interval holds the gain, above 0 and below 1.

        Raises:
            IntervalUnknownError: there are fewer than 8 rounds of rewards.
            InvalidValueError: the coverage is none.
        """
        return self.gain_uncertainty.interval(self.mean_reward, coverage, self._whose)

    @property
    def _whose(self) -> str:
        return self.agent_id or "this value function"

    def _rows(self, observations: Sequence[Any] | np.ndarray) -> Float[np.ndarray, "n d"]:
        return checked_features(self.features, observations, self._whose)

    def save(self, path: Path | str) -> None:
        """Writes it as an npz file without pickle; the file appears whole or not at all.

        What `Agent.save` writes can be learnt on from; this is smaller, and is only to be asked. With `practical`
        it holds the spread of the weights, d² numbers of float32.

        Raises:
            RunFileError: it cannot be written.
        """
        save_npz(
            Path(path),
            format=FORMAT,
            workload=self.workload,
            seed=self.seed,
            agent_id=self.agent_id,
            index=self.index,
            label=self.label,
            feature_fingerprint=self.features.fingerprint,
            weights=self.weights,
            gain=np.array([self.gain]),
            steps=self.steps,
            mean_reward=self.mean_reward,
            value_error=self.value_error,
            gain_error=self.gain_error,
            mean_reward_standard_error=self.gain_uncertainty.standard_error,
            mean_reward_freedom=self.gain_uncertainty.freedom,
            **self.uncertainty.values(self._whose),
        )

    @classmethod
    def load(
        cls,
        path: Path | str,
        features: FeatureMap | None = None,
        *,
        agent: str | None = None,
        workload: Workload | str | None = None,
        seed: int | None = None,
    ) -> "ValueFunction":
        """Reads what `save`, `Agent.save` or `cospan run` (`agents/<id>.npz`, `agents/group-….npz`) has written.

        Args:
            path: of the file.
            features: the map that it was learnt with; that of the workload if omitted.
            agent: the agent's name, as `site-7`; of the file of a group, which holds many.
            workload: whose map it is, or its name as on the command line. Without either, that of the file if it
                is built in: no file may name other code to be run.
            seed: of the run, for the workload; that of the file if omitted.

        Raises:
            RunFileError: the file is missing, damaged, or of another feature map, or has no such agent.
            WorkloadError: there is no such workload or site.
        """
        result, path = _load(Path(path), agent), Path(path)
        index, own_seed = result.whole("index"), result.whole("seed") if "seed" in result.values else 0
        if features is None:
            made_by = load_workload(_workload_of(result, path) if workload is None else workload)
            site = make_site(made_by, index, own_seed if seed is None else seed)
            features = _learnt_with(site, result.text("feature_fingerprint"))
        return cls.of_result(result, path, features, seed=own_seed)

    @classmethod
    def of_result(cls, result: AgentResult, path: Path, features: FeatureMap, *, seed: int = 0) -> "ValueFunction":
        """That of a file which is read already, or of one agent of a group's (`group_file.member_of`).

        Args:
            result: the values.
            path: of the file, for sentences.
            features: the map that it was learnt with.
            seed: of the run.

        Raises:
            RunFileError: the file is damaged, or of another feature map.
        """
        _check_features(result, path, features)
        return cls(
            features=features,
            weights=_read_only(result.vector("weights", features.dim)),
            gain=float(result.vector("gain", 1)[0]),
            agent_id=result.text("agent_id"),
            index=result.whole("index"),
            label=result.text("label"),
            workload=result.text("workload"),
            seed=seed,
            steps=result.whole("steps"),
            mean_reward=result.number("mean_reward"),
            value_error=result.number("value_error"),
            gain_error=result.number("gain_error"),
            uncertainty=ValueUncertainty.of_file(result, features.dim),
            gain_uncertainty=GainUncertainty.of_file(result),
        )

    def __repr__(self) -> str:
        whose = f" of {self.agent_id}" if self.agent_id else ""
        return f"<ValueFunction{whose}: d = {len(self.weights)}, gain {self.gain:.6g}, after {self.steps:,} steps>"


def _read_only(weights: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    copy = np.array(weights, dtype=np.float64)
    copy.setflags(write=False)
    return copy


def _load(path: Path, agent: str | None) -> AgentResult:
    found = str(load_npz(path, "a value function", names=("format",)).get("format"))
    is_of_group = found.startswith(("cospan-group-", "cospan-improving-group-"))
    if is_of_group and agent is not None:
        # Here, so that the file of one agent is read where there is no gRPC.
        from cospan.client.files.group_file import member_of

        member = member_of(path, agent)
        if member is None:
            raise RunFileError(f"{path} has no agent {agent[:80]!r}; its names are in the array agent_ids")
        return member
    values = load_npz(path, "a value function")
    if found.startswith("cospan-agent-"):
        check_format(path, values, AGENT_FORMAT, "the result of an agent")
    elif found.rpartition("-")[0] == FORMAT.rpartition("-")[0]:
        check_format(path, values, FORMAT, "a value function")
    elif is_of_group:
        raise RunFileError(f"{path} is the file of a group; name one of its agents, with agent='site-7'")
    else:
        raise RunFileError(
            f"{path} has the format {found[:40]!r}; a value function is read from the file of one agent, as "
            f"agents/site-0.npz of a run ({AGENT_FORMAT}), or from one of ValueFunction.save ({FORMAT})"
        )
    result = AgentResult(values)
    if agent is not None and result.text("agent_id") != agent:
        raise RunFileError(f"{path} is what {result.text('agent_id')[:80]} has learnt, and not {agent[:80]!r}")
    return result


def _learnt_with(site: AnySite, fingerprint: str) -> FeatureMap:
    """The map of this fingerprint: in a run that improves policies by the values of actions, that of pairs."""
    of_pairs = site.decisions.action_features if isinstance(site, Site) and site.decisions is not None else None
    return of_pairs if of_pairs is not None and of_pairs.fingerprint == fingerprint else site.features


def _workload_of(result: AgentResult, path: Path) -> str:
    named = result.text("workload")
    if named not in BUILT_IN:
        raise RunFileError(
            f"{path} was learnt with workload {named[:80]!r}, which does not come with Cospan; name it to "
            "have it imported, with workload=… or --workload, or give its features"
        )
    return named


def _check_features(result: AgentResult, path: Path, features: FeatureMap) -> None:
    learnt_with = result.text("feature_fingerprint")
    if learnt_with != features.fingerprint:
        raise RunFileError(
            f"{path} was learnt with the feature map {learnt_with[:80]!r}, and this one is "
            f"{features.fingerprint!r}; give the features, or the workload and seed, of that run"
        )
