"""What rounds cost: from noise to (ε, δ) and back, by the package `dp-accounting` (the extra `dp`).

A round is a Gaussian mechanism of multiplier z. Rényi divergences of the rounds add up, also where a round's
uploads depend on what earlier rounds published (Mironov 2017, "Rényi differential privacy"), and become (ε, δ) by
proposition 12 of Canonne, Kamath and Steinke 2020. Privacy loss distributions would give a smaller ε, but what is
proved of sums of discrete Gaussians is in terms of Rényi divergences (`cospan.core.privacy.mechanism`).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cospan.core.privacy.accounting import ORDERS
from cospan.core.privacy.request import MAX_EPSILON
from cospan.core.privacy.request import MAX_VECTORS as MAX_ROUNDS
from cospan.wire.errors import InvalidValueError

_DIGITS = 1e-6
"""By how much, relatively, a multiplier may be larger than is needed."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A promise to every agent, and the noise that keeps it for a number of rounds.

    An agent's vector counts once it has been sent, whether its round closed or not. A vector that is sent again, to
    the same bits, costs nothing.

    Attributes:
        epsilon: ε of the promise.
        delta: δ of the promise.
        rounds: how many vectors each agent may send.
        multiplier: z, see `cospan.core.privacy.mechanism`.
    """

    epsilon: float
    delta: float
    rounds: int
    multiplier: float

    @classmethod
    def of(cls, epsilon: float, delta: float, rounds: int) -> "Budget":
        """The budget with the least noise that allows these rounds.

        Raises:
            ValueError: a number is out of its range; see `budget_problem`.
            InvalidValueError: the package `dp-accounting` is not installed.
        """
        return cls(epsilon, delta, rounds, noise_multiplier(epsilon, delta, rounds))

    def spent(self, sent: int) -> float:
        """ε, for the budget's δ, after that many vectors of an agent; 0 before the first."""
        return epsilon_of(self.multiplier, sent, self.delta)

    def allows(self, sent: int) -> bool:
        """Whether an agent that has sent that many vectors may send one more."""
        return sent < self.rounds


def budget_problem(epsilon: float, delta: float, rounds: int) -> str:
    """Why there is no such budget; empty where there is."""
    if not 0.0 < epsilon <= MAX_EPSILON:
        return f"epsilon is {epsilon:g}; it must be above 0 and at most {MAX_EPSILON:g}"
    if not 0.0 < delta < 1.0:
        return f"delta is {delta:g}; it must be above 0 and below 1, and far below 1 / agents"
    if not 1 <= rounds <= MAX_ROUNDS:
        return f"a budget is for 1 to {MAX_ROUNDS} rounds, and not for {rounds}"
    return ""


@lru_cache(maxsize=1024)
def epsilon_of(multiplier: float, rounds: int, delta: float) -> float:
    """ε after T rounds with noise of multiplier z.

    Raises:
        ValueError: an argument is out of its range.
        InvalidValueError: the package `dp-accounting` is not installed.
    """
    if not (multiplier > 0.0 and rounds >= 0 and 0.0 < delta < 1.0):
        raise ValueError(f"no ε for a multiplier of {multiplier:g}, {rounds} rounds and δ = {delta:g}")
    if not rounds:
        return 0.0
    accounting, rdp = _packages()
    accountant = rdp.RdpAccountant(orders=ORDERS)
    accountant.compose(accounting.GaussianDpEvent(multiplier), rounds)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=1024)
def noise_multiplier(epsilon: float, delta: float, rounds: int) -> float:
    """The least z, to a millionth, with which T rounds cost at most (ε, δ).

    T rounds of multiplier z cost what one of z / √T does, so z is √T times that of one round.

    Raises:
        ValueError: a number is out of its range; see `budget_problem`.
        InvalidValueError: the package `dp-accounting` is not installed.
    """
    if problem := budget_problem(epsilon, delta, rounds):
        raise ValueError(problem)
    low, high = 0.0, math.sqrt(rounds)
    while epsilon_of(high, rounds, delta) > epsilon:
        low, high = high, 2.0 * high
    while high - low > _DIGITS * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if epsilon_of(middle, rounds, delta) > epsilon else (low, middle)
    return high


def affordable_rounds(multiplier: float, epsilon: float, delta: float) -> int:
    """The most rounds, up to `MAX_ROUNDS`, that noise of multiplier z keeps within (ε, δ).

    Raises:
        ValueError: a number is out of its range.
        InvalidValueError: the package `dp-accounting` is not installed.
    """
    if problem := budget_problem(epsilon, delta, 1):
        raise ValueError(problem)
    low, high = 0, 1
    while high <= MAX_ROUNDS and epsilon_of(multiplier, high, delta) <= epsilon:
        low, high = high, 2 * high
    high = min(high, MAX_ROUNDS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if epsilon_of(multiplier, middle, delta) <= epsilon else (low, middle)
    return low


def _packages() -> tuple[Any, Any]:
    """`dp_accounting` and its Rényi accountant, imported where they are needed: they load SciPy."""
    try:
        import dp_accounting
        from dp_accounting import rdp
    except ImportError as missing:
        raise InvalidValueError(
            "differential privacy needs the package dp-accounting; pip install 'cospan[dp]'"
        ) from missing
    return dp_accounting, rdp
