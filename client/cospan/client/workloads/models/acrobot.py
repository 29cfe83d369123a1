"""The six acrobots: their lengths, Gymnasium's equations of motion for many at once, and the fleet's policy.

The motion itself stays Gymnasium's: one environment is its `AcrobotEnv` with other lengths, and many states at
once are moved by that class's own derivatives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeAlias

import numpy as np
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from jaxtyping import Float, Float32, Int

DATA = files("cospan.client.workloads") / "data"
POLICY_FILE = DATA / "acrobot_policy.npz"

LINK_1 = (2.2, 1.5, 2.0, 3.0, 2.1, 1.5)
"""Length of the upper link of each site, m (arXiv:2603.02426)."""
LINK_2 = (1.0, 1.0, 0.8, 1.0, 1.0, 1.0)
"""Length of the lower link of each site, m."""

START_BOUND = 0.1
"""Angles and velocities of a start are uniform between minus and plus this, as in Gymnasium."""
VELOCITY_SCALES = (4.0, 6.0)
"""rad/s by which the policy's network divides the two velocities."""
EXPLORATION = 0.1
"""Share of steps in which the policy takes a random action instead."""

States: TypeAlias = Float[np.ndarray, "4 n"]
"""θ1, θ2 (−π to π; 0 hangs down, θ2 is relative to the upper link), their velocities (rad/s)."""


class LinkedAcrobot(AcrobotEnv):
    """Gymnasium's Acrobot-v1 with links of other lengths, and without its time limit.

    The paper gives lengths alone. The centre of mass of a link stays at half its length, its mass is 1 kg, and its
    moment of inertia about that centre 1 kg m² whatever the length: Gymnasium's numbers for links of 1 m.
    Observation, action, start and reward are Gymnasium's: −1 for each step, 0 for the one that reaches the goal.
    The goal, −cos θ1 − cos(θ1 + θ2) > 1, is one on the angles alone, so it is the same for all lengths (with
    links of 1 m it is a height of 1 m above the pivot), and can be reached with all six.
    """

    def __init__(
        self, link_1: float | Float[np.ndarray, " n"] = 1.0, link_2: float | Float[np.ndarray, " n"] = 1.0
    ) -> None:
        """Lengths in m; arrays are for `Motion` alone."""
        super().__init__()
        self.LINK_LENGTH_1: Any = link_1
        self.LINK_LENGTH_2: Any = link_2
        self.LINK_COM_POS_1: Any = 0.5 * link_1
        self.LINK_COM_POS_2: Any = 0.5 * link_2

    def save_state(self) -> dict[str, Any]:
        """θ1, θ2 and their velocities, with the bits and the type that Gymnasium computes them in."""
        return {"state": self.state}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `save_state` gave. Raises ValueError where that is no four finite numbers."""
        found = np.asarray(state["state"])
        if found.shape != (4,) or not np.isfinite(found).all():
            raise ValueError(f"the state {found}")
        self.state = found  # type: ignore[assignment]  # declared as None


class Motion:
    """Moves many acrobots at once, by the derivatives, limits and time step of `LinkedAcrobot`."""

    def __init__(
        self, link_1: float | Float[np.ndarray, " n"] = 1.0, link_2: float | Float[np.ndarray, " n"] = 1.0
    ) -> None:
        """Lengths in m: one for all, or one for each state."""
        self._env = LinkedAcrobot(link_1, link_2)

    def after(self, states: States, actions: Int[np.ndarray, " n"]) -> States:
        """The states one step later: one Runge-Kutta step of fourth order, angles wrapped, velocities cut off."""
        step, torques = self._env.dt, np.array(self._env.AVAIL_TORQUE)[actions]
        k1 = self._derivative(states, torques)
        k2 = self._derivative(states + 0.5 * step * k1, torques)
        k3 = self._derivative(states + 0.5 * step * k2, torques)
        k4 = self._derivative(states + step * k3, torques)
        moved: States = states + step / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        # Wrapped only where needed: Gymnasium leaves the other angles as they are, to the last bit.
        turns = np.where(np.abs(moved[:2]) > np.pi, np.round(moved[:2] / (2.0 * np.pi)), 0.0)
        moved[:2] -= 2.0 * np.pi * turns
        moved[2].clip(-self._env.MAX_VEL_1, self._env.MAX_VEL_1, out=moved[2])
        moved[3].clip(-self._env.MAX_VEL_2, self._env.MAX_VEL_2, out=moved[3])
        return moved

    def _derivative(self, states: States, torques: Float[np.ndarray, " n"]) -> States:
        *derivative, _ = self._env._dsdt([*states, torques])  # type: ignore[no-untyped-call]
        return np.array(derivative)


def reached(states: States) -> np.ndarray:
    """Whether each state is at the goal."""
    at_goal: np.ndarray = -np.cos(states[0]) - np.cos(states[1] + states[0]) > 1.0
    return at_goal


def starts(count: int, rng: np.random.Generator) -> States:
    """Start states as `LinkedAcrobot.reset` draws them, rounded to float32 as there."""
    drawn = rng.uniform(-START_BOUND, START_BOUND, size=(4, count))
    return np.asarray(drawn.astype(np.float32).astype(np.float64))


def observed(states: States) -> Float32[np.ndarray, "n 6"]:
    """The observation of each state: cos θ1, sin θ1, cos θ2, sin θ2 and the velocities."""
    first, second, *velocities = states
    rows = [np.cos(first), np.sin(first), np.cos(second), np.sin(second), *velocities]
    return np.stack(rows, axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False, slots=True)
class SwingUp:
    """The fleet's policy: a small network says which way to push, and in a share of the steps chance does.

    u = outᵀ tanh(Wᵀ x + b), x the observation with its velocities scaled; pushes one way for u > 0 and the
    other way else.

    Attributes:
        inner: W, shape (6, h).
        shift: b, shape (h,).
        outer: out, shape (h,).

    With further axes in front, as in `references.acrobot_policy`, it is many policies, one for each observation.
    """

    inner: Float[np.ndarray, "*p 6 h"]
    shift: Float[np.ndarray, "*s h"]
    outer: Float[np.ndarray, "*o"]

    def preferred(self, observations: Any) -> Any:
        """The action, 0 or 2, of one observation or of several (one per row), without chance."""
        hidden = np.tanh(observations @ self.inner + self.shift)
        return 2 * (hidden @ self.outer > 0.0)

    def __call__(self, observation: Any, generator: np.random.Generator) -> int:
        """The action of one step."""
        if generator.random() < EXPLORATION:
            return int(generator.integers(3))
        return int(self.preferred(observation))

    def actions(self, observations: Any, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """An action for each of several observations; `rng` says where to explore, then what to try there."""
        preferred = np.reshape(self.preferred(observations), -1)
        explore = rng.random(len(preferred)) < EXPLORATION
        return np.where(explore, rng.integers(3, size=len(preferred)), preferred)
