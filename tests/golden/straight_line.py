"""PMAAR-TD a second time, as slowly and plainly as it can be said: lists, loops and the standard library.

Written from arXiv:2603.02426 (Algorithm 1, eqs. 6-8) alone, so that it shares no line and no array operation with
`cospan.core`. It imports neither cospan nor numpy. A matrix is a list of its rows.
"""

import math
from dataclasses import dataclass

Vector = list[float]
Matrix = list[list[float]]


@dataclass
class Constants:
    """β, γ, U, ζ; and the options: implicit step, ε (None: no preconditioning), c and p of the step decay."""

    beta: float
    gamma: float
    radius: float
    zeta: float
    implicit: bool = False
    epsilon: float | None = None
    horizon: float = 0.0
    power: float = 0.0

    def decay(self, steps: int) -> float:
        """(c / (c + t))^p."""
        if self.horizon == 0.0:
            return 1.0
        return (self.horizon / (self.horizon + steps)) ** self.power


@dataclass
class Agent:
    """w and η of one agent, and how many environment steps it has learnt from."""

    head: Vector
    gain: float = 0.0
    steps: int = 0


@dataclass
class AgentRound:
    """What one agent did in a round: δ of each correction, G, the mean of w wᵀ, and w and η afterwards."""

    errors: Vector
    gradient: Matrix
    second_moment: Matrix
    head: Vector
    gain: float


@dataclass
class CoordinatorRound:
    """What the coordinator did in a round: the mean, ζ times its tangent projection, B̄ and the next B."""

    mean: Matrix
    step: Matrix
    unnormalised: Matrix
    basis: Matrix


# Linear algebra by loops ----------------------------------------------------------------------------------------


def zeros(rows: int, columns: int) -> Matrix:
    return [[0.0] * columns for _ in range(rows)]


def dot(a: Vector, b: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def column(matrix: Matrix, index: int) -> Vector:
    return [row[index] for row in matrix]


def product(a: Matrix, b: Matrix) -> Matrix:
    return [[dot(row, column(b, j)) for j in range(len(b[0]))] for row in a]


def positive_qr_basis(matrix: Matrix) -> Matrix:
    """Q of the QR factorisation whose R has a positive diagonal: Gram-Schmidt, each column orthogonalised twice."""
    columns: list[Vector] = []
    for index in range(len(matrix[0])):
        vector = column(matrix, index)
        for _ in range(2):
            for earlier in columns:
                overlap = dot(earlier, vector)
                vector = [x - overlap * e for x, e in zip(vector, earlier, strict=True)]
        length = math.sqrt(dot(vector, vector))  # the diagonal entry of R: a length, hence positive
        columns.append([x / length for x in vector])
    return [[vector[row] for vector in columns] for row in range(len(matrix))]


def inverse(matrix: Matrix) -> Matrix:
    """Gauss-Jordan with the largest pivot of the column."""
    size = len(matrix)
    table = [list(row) + [1.0 if i == j else 0.0 for j in range(size)] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = max(range(i, size), key=lambda row: abs(table[row][i]))
        table[i], table[pivot] = table[pivot], table[i]
        table[i] = [x / table[i][i] for x in table[i]]
        for other in range(size):
            if other != i:
                factor = table[other][i]
                table[other] = [x - factor * y for x, y in zip(table[other], table[i], strict=True)]
    return [row[size:] for row in table]


# The agent ------------------------------------------------------------------------------------------------------


def coordinates_of(basis: Matrix, features: Vector) -> Vector:
    """Bᵀ φ."""
    return [dot(column(basis, j), features) for j in range(len(basis[0]))]


def into_ball(vector: Vector, radius: float) -> Vector:
    length = math.sqrt(dot(vector, vector))
    return [x * radius / length for x in vector] if length > radius else vector


def paper_round(agent: Agent, basis: Matrix, features: Matrix, rewards: Vector, c: Constants) -> AgentRound:
    """Algorithm 1: one L-step error (eq. 6), the gradient at the old head (eq. 8), one head step (eq. 7), the gain.

    Changes `agent`.
    """
    d, r, L = len(basis), len(basis[0]), len(rewards)
    weights = [dot(basis[i], agent.head) for i in range(d)]  # B w
    delta = 0.0
    for reward in rewards:
        delta += reward - agent.gain
    for i in range(d):
        delta += (features[L][i] - features[0][i]) * weights[i]

    gradient = [[delta * features[0][i] * agent.head[j] / L for j in range(r)] for i in range(d)]
    moment = [[agent.head[i] * agent.head[j] for j in range(r)] for i in range(r)]

    z = coordinates_of(basis, features[0])
    moved = [agent.head[j] + c.beta / L * delta * z[j] for j in range(r)]
    agent.head = into_ball(moved, c.radius)
    agent.gain = agent.gain + c.gamma * (math.fsum(rewards) / L - agent.gain)
    agent.steps += L
    return AgentRound([delta], gradient, moment, list(agent.head), agent.gain)


def every_step_round(agent: Agent, basis: Matrix, features: Matrix, rewards: Vector, c: Constants) -> AgentRound:
    """TD(0) at every step of the round in the frozen basis, G summed; implicit step and decay where asked for.

    Changes `agent`.
    """
    d, r, L = len(basis), len(basis[0]), len(rewards)
    gradient, moment, errors = zeros(d, r), zeros(r, r), []
    for step in range(L):
        z, z_next = coordinates_of(basis, features[step]), coordinates_of(basis, features[step + 1])
        delta = rewards[step] - agent.gain + dot(z_next, agent.head) - dot(z, agent.head)
        errors.append(delta)
        for i in range(d):
            for j in range(r):
                gradient[i][j] += delta * features[step][i] * agent.head[j]
        for i in range(r):
            for j in range(r):
                moment[i][j] += agent.head[i] * agent.head[j] / L
        decay = c.decay(agent.steps)
        beta = c.beta * decay
        if c.implicit:
            beta = beta / (1.0 + beta * dot(z, z))
        agent.head = into_ball([agent.head[j] + beta * delta * z[j] for j in range(r)], c.radius)
        agent.gain = agent.gain + c.gamma * decay * (rewards[step] - agent.gain)
        agent.steps += 1
    return AgentRound(errors, gradient, moment, list(agent.head), agent.gain)


# The coordinator ------------------------------------------------------------------------------------------------


def mean_of(matrices: list[Matrix]) -> Matrix:
    rows, columns, count = len(matrices[0]), len(matrices[0][0]), len(matrices)
    return [[math.fsum(m[i][j] for m in matrices) / count for j in range(columns)] for i in range(rows)]


def coordinator_round(basis: Matrix, rounds: list[AgentRound], c: Constants, steps: int) -> CoordinatorRound:
    """B̄ = B + ζ (I − B Bᵀ) Ḡ and B ← Q of B̄ with diag(R) > 0, Ḡ preconditioned where asked for.

    `steps` is the number of environment steps of one agent before the round.
    """
    d, r = len(basis), len(basis[0])
    mean = direction = mean_of([entry.gradient for entry in rounds])
    if c.epsilon is not None:
        moment = mean_of([entry.second_moment for entry in rounds])
        trace = math.fsum(moment[i][i] for i in range(r))
        if trace > 0.0:  # otherwise every head is zero, and so is the mean gradient
            for i in range(r):
                moment[i][i] += c.epsilon * trace / r
            direction = product(mean, inverse(moment))
    projector = [[(1.0 if i == k else 0.0) - dot(basis[i], basis[k]) for k in range(d)] for i in range(d)]
    tangent = product(projector, direction)
    zeta = c.zeta * c.decay(steps)
    step = [[zeta * x for x in row] for row in tangent]
    unnormalised = [[basis[i][j] + step[i][j] for j in range(r)] for i in range(d)]
    return CoordinatorRound(mean, step, unnormalised, positive_qr_basis(unnormalised))


# The special case -----------------------------------------------------------------------------------------------


def plain_td(
    theta: Vector, gain: float, features: Matrix, rewards: Vector, c: Constants
) -> list[tuple[Vector, float]]:
    """Average-reward TD(0): θ ← θ + β δ φ(s), η ← η + γ (r − η), both from the old values; all (θ, η) in turn."""
    history = []
    for reward, here, there in zip(rewards, features[:-1], features[1:], strict=True):
        delta = reward - gain + dot(there, theta) - dot(here, theta)
        theta = [weight + c.beta * delta * feature for weight, feature in zip(theta, here, strict=True)]
        gain = gain + c.gamma * (reward - gain)
        history.append((theta, gain))
    return history
