"""What browsers are told of a coordinator, from its rounds alone."""

from dataclasses import replace

import numpy as np
from runs import D, R, join, run, specification

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import paper, practical
from cospan.dashboard.run_view import RunView
from cospan.server.coordinator import Coordinator
from cospan.server.machine import events
from cospan.wire.messages import GradientUpload


def test_the_heads_of_a_round_are_seen_whenever_it_closes() -> None:
    """However short a time the machine has the gradients of all: a second moment is taken when the round closes."""

    async def look() -> None:
        spec = specification(replace(paper(steps_per_round=10), preconditioned=True), rounds=0)
        coordinator = Coordinator(spec, port=0)
        view, engine = RunView(coordinator), coordinator.engine
        for agent in ("a", "b"):
            engine.handle(events.JoinRequested(join(agent), engine.streams.open().number, agent))
        for number in range(3):
            for agent, size in (("a", 3.0 + number), ("b", 1.0)):
                moment = np.diag([size, 1.0])
                gradient = DenseMatrix(np.ones((D, R)))
                engine.take(agent, GradientUpload(number, Contribution(gradient, 1.0, moment)))
            if number != 1:
                view.gather()  # with nothing of a round open
        assert engine.state.round == 3
        assert not engine.state.open_round.contributions
        spectrum = view.frame()["spectrum"]
        # Of round 1, the first that closed after the look before.
        np.testing.assert_allclose(spectrum["shares"], [5.0 / 7.0, 2.0 / 7.0], atol=1e-4)

    run(look())


def test_the_spectrum_is_that_of_the_head_covariance_where_the_method_has_one() -> None:
    """Agents of `practical` send no second moments: the fleet's own estimate of what each direction carries."""

    async def look() -> None:
        coordinator = Coordinator(specification(practical(3), rounds=0), port=0)
        view, engine = RunView(coordinator), coordinator.engine
        for covariance, in_use, verdict in ((np.eye(R), R, "unlearnt"), (np.diag([3.0, 1e-5]), 1, "idle")):
            engine.loop.state = engine.state.evolve(head_covariance=covariance)
            view._shown_round, view._slow_due = -1, 0.0
            spectrum = view.frame()["spectrum"]
            assert (spectrum["source"], spectrum["in_use"], spectrum["verdict"]) == ("covariance", in_use, verdict)

    run(look())
