"""Agents whose gradients come from learners of their own, against a real coordinator over loopback gRPC."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cospan.client import GradientAgent
from cospan.client.session.learning_session import AgentEnd
from cospan.client.session.settings import SessionSettings
from cospan.core.linalg.parameter_chart import ParameterChart
from cospan.core.method import Method, paper, practical
from cospan.core.specification import RunSpecification
from cospan.server import Coordinator
from cospan.wire.errors import FeatureMismatchError, InvalidValueError, WorkloadBehaviourError

P = 5
SETTINGS = SessionSettings(progress_timeout_seconds=60.0)


class Quadratic:
    """Descends ‖θ − target‖²/2 from the shared parameters; a fifth of the way each round."""

    def __init__(self, target: np.ndarray) -> None:
        self.target, self.feature_dim, self.fingerprint = target, P + 1, "quadratic"
        self.rounds: list[int] = []
        self.chart: ParameterChart | None = None

    def begin(self, specification: RunSpecification) -> None:
        self.chart = ParameterChart(np.zeros(P), specification.initial_basis(), 10.0)

    def gradient(self, round_number: int, basis: np.ndarray) -> np.ndarray:
        assert self.chart is not None
        self.rounds.append(round_number)
        parameters = self.chart.parameters(basis)
        return self.chart.gradient(parameters, 0.2 * (self.target - parameters))


class Broken(Quadratic):
    def __init__(self, gradient: np.ndarray | BaseException) -> None:
        super().__init__(np.zeros(P))
        self.found = gradient

    def gradient(self, round_number: int, basis: np.ndarray) -> np.ndarray:
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found


def run_of(agents: int, rounds: int, method: Method | None = None) -> RunSpecification:
    chosen = replace(paper(50), basis_step=1.0) if method is None else method
    return RunSpecification("quadratic", P + 1, 1, agents=agents, rounds=rounds, seed=3, method=chosen)


Ends = list[AgentEnd | BaseException]


def take_part(specification: RunSpecification, sources: Sequence[Quadratic]) -> tuple[Ends, np.ndarray]:
    """All agents in a run of their own: how it ended for each, and the last basis."""

    async def run() -> tuple[Ends, np.ndarray]:
        async with Coordinator(specification) as coordinator:
            agents = [
                GradientAgent(each, agent_id=f"site-{k}", coordinator=coordinator.address, settings=SETTINGS)
                for k, each in enumerate(sources)
            ]
            ends = await asyncio.gather(*(agent.run_async() for agent in agents), return_exceptions=True)
            basis = coordinator.basis
        for agent, end in zip(agents, ends, strict=True):
            assert (agent.basis is None) == isinstance(end, BaseException)
            assert agent.basis is None or np.array_equal(agent.basis, basis)
        return ends, basis

    return asyncio.run(run())


def test_agents_find_the_mean_of_their_targets() -> None:
    targets = np.random.default_rng(0).standard_normal((3, P))
    sources = [Quadratic(target) for target in targets]
    ends, basis = take_part(run_of(3, 60), sources)
    assert all(isinstance(end, AgentEnd) and end.rounds == 60 and not end.left for end in ends)
    assert all(source.rounds == list(range(60)) for source in sources)
    assert sources[0].chart is not None
    np.testing.assert_allclose(sources[0].chart.parameters(basis), targets.mean(axis=0), atol=1e-4)


@pytest.mark.parametrize(
    ("gradient", "text"),
    [
        (np.zeros(P + 1), r"gave, in round 0, a gradient of shape \(6,\); it must be \(6, 1\), as the basis is"),
        (np.full((P + 1, 1), np.nan), "in round 0, a gradient with entries that are not finite"),
        (KeyError("weights"), "the source of site-0 failed: KeyError: 'weights'"),
        (SystemExit(3), "the source of site-0 failed: SystemExit: 3"),
    ],
)
def test_a_broken_source_is_one_sentence(gradient: np.ndarray | BaseException, text: str) -> None:
    (end,), _ = take_part(run_of(1, 3), [Broken(gradient)])
    assert isinstance(end, WorkloadBehaviourError)
    with pytest.raises(WorkloadBehaviourError, match=text):
        raise end


def test_a_run_that_needs_more_than_gradients_is_refused_before_it_is_joined() -> None:
    source = Quadratic(np.zeros(P))
    (end,), _ = take_part(run_of(1, 3, practical(50)), [source])
    assert isinstance(end, InvalidValueError)
    assert str(end).startswith("agent site-0 has gradients alone, and the method of this run")
    assert source.chart is None


def test_sources_of_another_kind_are_refused() -> None:
    source = Quadratic(np.zeros(P))
    specification = replace(run_of(1, 3), feature_fingerprint="cubic")
    (end,), _ = take_part(specification, [source])
    assert isinstance(end, FeatureMismatchError)
    assert not source.rounds


def test_run_blocks_and_so_refuses_a_thread_with_an_event_loop() -> None:
    async def run() -> None:
        with pytest.raises(InvalidValueError, match=r"write `await agent.run_async\(\)` in place of run\(\)"):
            GradientAgent(Quadratic(np.zeros(P)), agent_id="site-0").run()

    asyncio.run(run())
    with pytest.raises(InvalidValueError, match="agent id 'a/b' must be"):
        GradientAgent(Quadratic(np.zeros(P)), agent_id="a/b")
