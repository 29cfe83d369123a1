"""Six acrobots of different link lengths, and one fixed policy that swings each of them up.

The prediction experiment of arXiv:2603.02426: Gymnasium's Acrobot-v1 with six pairs of link lengths, as a chain
that never ends: reaching the goal is a transition into the next start state, and there is no time limit.
The paper gives neither features nor policy, so both are choices of this project: Fourier features of angles and
velocities, and a small network that `references.acrobot_policy` has trained, with one step in ten left to chance.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.features import BatchFeatures, FourierFeatures, fingerprint
from cospan.client.workload import Site, Workload
from cospan.client.workloads.models.acrobot import DATA, LINK_1, LINK_2, POLICY_FILE, LinkedAcrobot, SwingUp
from cospan.client.workloads.references.solutions import read_references, shared_basis
from cospan.core.exact_solutions import ReferenceSolution

REFERENCE_FILE = DATA / "acrobot_reference.npz"

START = (1.0, 0.0, 1.0, 0.0, 0.0, 0.0)
"""The observation of the state whose value is followed: both links hang straight down, at rest."""
VELOCITY_BOUNDS = (6.0, 10.0)
"""rad/s up to which features tell velocities apart; they are seldom larger under the policy."""


@dataclass(frozen=True, slots=True)
class AcrobotFeatures(BatchFeatures):
    """Features of (θ1, θ2, θ̇1, θ̇2), worked out from an observation of Acrobot-v1.

    Attributes:
        of_state: the map of the four; it keeps the promises of a `FeatureMap`, so this one does.
    """

    of_state: FourierFeatures

    @property
    def dim(self) -> int:
        """d of the map."""
        return self.of_state.dim

    @property
    def fingerprint(self) -> str:
        """`acrobot-` and a hash of the map's fingerprint."""
        return fingerprint("acrobot", self.of_state.fingerprint.encode())

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several observations, one per row."""
        values = np.asarray(observations, dtype=np.float64).reshape(-1, 6)
        first = np.arctan2(values[:, 1], values[:, 0])
        second = np.arctan2(values[:, 3], values[:, 2])
        return self.of_state.batch(np.column_stack([first, second, values[:, 4:]]))


FEATURES = AcrobotFeatures(
    FourierFeatures(
        low=(-np.pi, -np.pi, -VELOCITY_BOUNDS[0], -VELOCITY_BOUNDS[1]),
        high=(np.pi, np.pi, *VELOCITY_BOUNDS),
        order=(1, 1, 2, 2),
        periodic=(True, True, False, False),
    )
)


@cache
def fleet_policy() -> SwingUp:
    """The shipped policy; `references.acrobot_policy` has trained it."""
    with POLICY_FILE.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return SwingUp(*(archive[name].astype(np.float64) for name in ("inner", "shift", "outer")))


@cache
def _references() -> tuple[ReferenceSolution, ...]:
    """The shipped reference solutions; `references.acrobot` makes them."""
    return read_references(REFERENCE_FILE, FEATURES, f"{__package__}.references.acrobot")


def make_site(index: int, seed: int) -> Site:
    """The acrobot of the lengths number `index`. `seed` plays no part in what it is; `reset` draws its starts.

    Raises:
        ValueError: there is no such site.
    """
    if not 0 <= index < len(LINK_1) or seed < 0:
        raise ValueError(
            f"acrobot {index} with seed {seed}: there are sites 0 to {len(LINK_1) - 1}, and seeds from 0 on"
        )
    return Site(
        env=LinkedAcrobot(LINK_1[index], LINK_2[index]),
        features=FEATURES,
        policy=fleet_policy(),
        reference=_references()[index],
        label=f"links {LINK_1[index]} m and {LINK_2[index]} m",
    )


@cache
def _means() -> Float[np.ndarray, "sites d"]:
    """E_μ[φ] of each site, from the file of the reference solutions."""
    with REFERENCE_FILE.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return np.asarray(archive["feature_mean"])


def start_features(index: int) -> Float[np.ndarray, " d"]:
    """φ(START) − E_μ[φ]: its product with z is the differential value of the start state on a site.

    The constant that makes μ·V zero, as a differential value's is. Weights alone do not fix it well: some functions
    in the span are nearly constant where the chain goes, and are learnt late.
    """
    return np.asarray(FEATURES(START) - _means()[index])


def fleet_basis(agents: int, rank: int, seed: int) -> Float[np.ndarray, "d r"]:
    """The best r-dimensional subspace of the reference weights of sites 0 … agents − 1, whatever the seed."""
    del seed
    return shared_basis(_references()[:agents], rank)


workload = Workload(
    make_site=make_site, name="acrobot", rank=3, steps_per_round=50, max_agents=6, fleet_basis=fleet_basis
)
"""The six acrobots."""
