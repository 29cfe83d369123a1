"""What a stored run is: all that a coordinator needs to go on with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification
from cospan.server.machine.sessions import Departure, Seat, Session


@dataclass(frozen=True, eq=False, slots=True)
class SavedRun:
    """A run as it was stored.

    Attributes:
        run_id: its name.
        specification: of the run.
        round: t, the round that was open: every round below it is stored.
        basis: B_t, shape (d, r); None before the first round has closed.
        row_squares: see `cospan.core.aggregation.basis_update.BasisMove`.
        sessions: those that were open.
        seats: holder → the site that was given to it.
        departures: agents that were gone.
        last_contributors: of round t − 1.
        accepted: round → agents whose gradients of that round have counted; of the newest rounds.
        rounds_counted: agent → number of closed rounds that had its gradient.
        last_rounds: agent → the newest of them.
    """

    run_id: str
    specification: RunSpecification
    round: int = 0
    basis: Float[np.ndarray, "d r"] | None = None
    row_squares: Float[np.ndarray, " d"] | None = None
    sessions: tuple[Session, ...] = ()
    seats: Mapping[str, Seat] = field(default_factory=dict)
    departures: tuple[Departure, ...] = ()
    last_contributors: frozenset[str] = frozenset()
    accepted: Mapping[int, frozenset[str]] = field(default_factory=dict)
    rounds_counted: Mapping[str, int] = field(default_factory=dict)
    last_rounds: Mapping[str, int] = field(default_factory=dict)
