"""The methods that experiments compare, by name and with their constants."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.core.learning.baselines import INDEPENDENT_STEPS
from cospan.core.method import PRESETS, Aggregation, HeadUpdate, Method
from cospan.experiments.methods.ablation import ABLATIONS, AblatedFleet
from cospan.experiments.methods.attacks import Attack, AttackedFleet
from cospan.experiments.methods.compared_methods import (
    LSTD_RIDGES,
    FleetMethod,
    IndependentFleet,
    JointFleet,
    LstdFleet,
    TwoTimescaleFleet,
)
from cospan.experiments.methods.posterior_ablation import POSTERIOR_ABLATIONS, PosteriorAblation

JOINT, TD_ALONE, LSTD_ALONE = "joint", "TD alone", "LSTD alone"
LSTD_DECAYS = (0.0, 0.5)
"""λ of LSTD alone; the best is reported."""
STEPPING: Mapping[str, object] = {
    "head_update": "every-step",
    "preconditioned": False,
    "row_scaled": False,
    "reward_scaled": False,
    "head_radius": 1000.0,
    "forgetting": 0.0,
    "warm_up_rounds": 0,
}
"""Constants of a method without an orthonormal basis: steps instead of solutions, nothing scaled."""

TWO_TIMESCALE_STEPS = [0.003, 0.03, 0.3, 3.0, 10.0]
"""ζ of the variants of two time scales; the best is reported."""


@dataclass(frozen=True, eq=False, slots=True)
class Stage:
    """Common inputs of all methods of a run.

    Attributes:
        agents: n.
        basis: B_0, shape (d, r).
        steps_per_round: L.
        true_basis: B*, shape (d, q), if known.
        step_sizes: of TD alone.
        ridges: of LSTD alone.
        attack: what dishonest agents of the joint method send; None if all are honest.
    """

    agents: int
    basis: Float[np.ndarray, "d r"]
    steps_per_round: int
    true_basis: Float[np.ndarray, "d q"] | None = None
    step_sizes: tuple[float, ...] = INDEPENDENT_STEPS
    ridges: tuple[float, ...] = LSTD_RIDGES
    attack: Attack | None = None


@dataclass(frozen=True, slots=True)
class ComparedMethod:
    """One method.

    Attributes:
        name: in tables.
        kind: a key of `KINDS`.
        preset: whose constants it starts from.
        steps: step sizes of TD alone and its derivatives; each is a variant.
        ridges: of LSTD alone, in environment steps; each is a variant.
        method: constants that differ from the preset's; each element of a list is a variant. The variant with the
            smallest final error is reported.
    """

    name: str
    kind: str
    preset: str = "practical"
    method: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[float, ...] = INDEPENDENT_STEPS
    ridges: tuple[float, ...] = LSTD_RIDGES

    def fleets(self, stage: Stage) -> list[FleetMethod]:
        """A fleet for each variant; empty if the method needs B* and it is unknown."""
        if self.kind == "known-basis" and stage.true_basis is None:
            return []
        stage = replace(stage, step_sizes=self.steps, ridges=self.ridges)
        return [KINDS[self.kind](stage, method) for method in self.methods(stage.steps_per_round)]

    def methods(self, steps_per_round: int) -> list[Method]:
        """The constants of each variant."""
        values = {
            name: value if isinstance(value, list | tuple) else (value,) for name, value in self.method.items()
        }
        start = PRESETS[self.preset](steps_per_round)
        return [
            _with_constants(start, dict(zip(values, chosen, strict=True)))
            for chosen in itertools.product(*values.values())
        ]


def _with_constants(start: Method, constants: dict[str, Any]) -> Method:
    if "head_update" in constants:
        constants["head_update"] = HeadUpdate(constants["head_update"])
    if "aggregation" in constants:
        constants["aggregation"] = Aggregation(constants["aggregation"])
    return replace(start, **constants)


def _joint(stage: Stage, method: Method) -> FleetMethod:
    fleet = JointFleet.initial(method, stage.basis, stage.agents)
    return fleet if stage.attack is None else AttackedFleet(fleet, stage.attack)


def _known_basis(stage: Stage, method: Method) -> FleetMethod:
    assert stage.true_basis is not None
    return JointFleet.initial(_frozen(method), stage.true_basis, stage.agents)


def _alone(stage: Stage, method: Method) -> FleetMethod:
    """The same rule in all d dimensions, B = I: each agent alone."""
    return JointFleet.initial(_frozen(method), np.eye(len(stage.basis)), stage.agents)


def _frozen(method: Method) -> Method:
    return replace(method, basis_step=0.0, warm_up_rounds=0)


def _independent(stage: Stage, method: Method, rank: int | None = None) -> FleetMethod:
    return IndependentFleet.initial(method, len(stage.basis), stage.agents, rank=rank, step_sizes=stage.step_sizes)


def _ablated(kind: type[AblatedFleet | PosteriorAblation], left_out: str) -> Callable[[Stage, Method], FleetMethod]:
    return lambda stage, method: kind.initial(left_out, method, stage.basis, stage.agents)


KINDS: dict[str, Callable[[Stage, Method], FleetMethod]] = {
    "joint": _joint,
    "known-basis": _known_basis,
    "alone": _alone,
    "independent": _independent,
    "lstd": lambda stage, method: LstdFleet.initial(
        len(stage.basis), stage.agents, trace_decay=method.trace_decay, ridges=stage.ridges
    ),
    "uniform": lambda stage, method: _independent(stage, method, 0),
    "svd": lambda stage, method: _independent(stage, method, stage.basis.shape[1]),
    "two-timescale": lambda stage, method: TwoTimescaleFleet.initial(method, stage.basis, stage.agents),
    **{left_out: _ablated(AblatedFleet, left_out) for left_out in ABLATIONS},
    **{left_out: _ablated(PosteriorAblation, left_out) for left_out in POSTERIOR_ABLATIONS},
}


def default_methods(
    constants: Mapping[str, Any] | None = None, *, preset: str = "practical"
) -> Sequence[ComparedMethod]:
    """The joint method and its baselines.

    Args:
        constants: that differ from the preset's; the baselines share decay, gain step and implicit step.
        preset: of the joint method.
    """
    own = dict(constants or {})
    return (
        ComparedMethod(JOINT, "joint", preset, own),
        ComparedMethod("joint, B* known", "known-basis", preset, own),
        ComparedMethod(TD_ALONE, "independent", preset, own),
        ComparedMethod(LSTD_ALONE, "lstd", preset, {"trace_decay": list(LSTD_DECAYS)}),
        ComparedMethod("FedTD-Uniform", "uniform", preset, own),
        ComparedMethod("TD, SVD at the server", "svd", preset, own),
        ComparedMethod(
            "two time scales", "two-timescale", preset, {**own, **STEPPING, "basis_step": TWO_TIMESCALE_STEPS}
        ),
    )
