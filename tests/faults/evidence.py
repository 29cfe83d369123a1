"""What the agents of a run have heard and sent, held against what the coordinator has stored.

A basis that an agent was told of is *provisional* while its last round is not durable, and *committed* once any
message of the same coordinator process has said that it is. What is committed stays: in the store, and for every
agent.
"""

import base64
import itertools
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cospan.core.aggregation.basis_update import BasisMove, Contribution, initial_head_covariance
from cospan.core.specification import RunSpecification, basis_digest
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.machine.events import BasisComputed, ComputeBasis
from cospan.server.runtime.basis_arithmetic import computed_basis
from cospan.server.storage.reader import StoredState, read_basis, read_state
from cospan.wire.codec.messages import decode_agent_message
from cospan.wire.limits import rounds_ahead
from cospan.wire.messages import GradientUpload, MaskedVector

_MOST_COMBINATIONS = 4096


@dataclass(frozen=True, slots=True)
class StoredRound:
    """One line of the store."""

    round: int
    stored: float
    weight: float
    contributors: dict[str, int]
    basis_sha256: str


def stored_rounds(path: Path) -> list[StoredRound]:
    """All rounds of a store, each contributor with the round of its gradient."""
    rounds: list[StoredRound] = []
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        named: Any = []
        columns = "round, stored, weight, contributors, basis_sha256"
        for number, stored, weight, contributors, digest in connection.execute(
            f"SELECT {columns} FROM rounds ORDER BY round"
        ):
            if contributors is not None:
                named = json.loads(contributors)
            own = named if isinstance(named, dict) else dict.fromkeys(named, number)
            rounds.append(StoredRound(number, stored, weight, dict(own), digest))
    return rounds


def stored_bases(path: Path, state: StoredState) -> dict[int, bytes]:
    """Round t → B_t of all that are kept, read at once: a restart waits for it, and there may be thousands."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        bases: dict[int, bytes] = dict(connection.execute("SELECT round, basis FROM bases"))
    first = state.specification.initial_basis().astype("<f8").tobytes()
    return {number: bases.get(number, first) if number == 0 else bases[number] for number in state.kept}


@dataclass
class Evidence:
    """Gathers what witnesses say."""

    newest: int = -1
    told: dict[int, dict[bytes, set[int]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    """Round → basis → incarnations of the coordinator that have told it."""
    durable: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Incarnation → the highest durable round that it has named."""
    sent: dict[tuple[str, int], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Agent and round → the gradients that it has sent for it."""
    masked: dict[tuple[str, int, int], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Agent, process and round → the masked vectors that the process has sent for it."""

    def hear(self, agent: str, document: dict[str, Any]) -> None:
        """Takes one line of a witness in."""
        if document["kind"] == "sent":
            message = base64.b64decode(document["message"])
            number = pb.CollaborateRequest.FromString(message).gradient.round
            self.sent[agent, number].add(message)
            if pb.CollaborateRequest.FromString(message).gradient.HasField("masked"):
                self.masked[agent, document["process"], number].add(message)
        elif document["kind"] == "told":
            number, incarnation = document["round"], document["incarnation"]
            self.told[number][base64.b64decode(document["basis"])].add(incarnation)
            self.durable[incarnation] = max(self.durable[incarnation], document["durable"])
            self.newest = max(self.newest, number)

    # What is promised -------------------------------------------------------------------------------------------

    def committed(self) -> dict[int, set[bytes]]:
        """Round t → every B_t that was told as durable."""
        return {
            number: {
                basis
                for basis, incarnations in bases.items()
                if any(self.durable[incarnation] >= number for incarnation in incarnations)
            }
            for number, bases in self.told.items()
        }

    def overturned(self) -> int:
        """How many bases were told ahead of the disk and came to be others."""
        return sum(len(bases) - 1 for bases in self.told.values())

    def lost(self, path: Path) -> Iterator[str]:
        """What the store in `path` lacks of what was committed; empty when all is well."""
        if not path.exists():
            return
        state = read_state(path)
        count, most = state.rounds, rounds_ahead(state.specification.feature_dim, state.specification.rank)
        if self.newest > count + most:
            yield f"round {self.newest} was told, and {count} rounds are stored: more than {most} ran ahead"
        committed = self.committed()
        for number, bases in committed.items():
            if len(bases) > 1:
                yield f"round {number} was committed with {len(bases)} different bases"
            if bases and number > count:
                yield f"the basis of round {number} was committed, and {count} rounds are stored"
        stored = stored_bases(path, state)
        for number in state.kept:
            known = committed.get(number, set())
            if known and known != {stored[number]}:
                yield f"the stored basis of round {number} is not the one that was committed"

    # What has counted -------------------------------------------------------------------------------------------

    def miscounted(self, path: Path) -> Iterator[str]:
        """Rounds or gradients that the store in `path` has twice, or not at all; empty when all is well."""
        rounds = stored_rounds(path)
        if [row.round for row in rounds] != list(range(len(rounds))):
            yield "the stored rounds are not 0, 1, 2 …"
        counted: dict[tuple[str, int], int] = {}
        for row in rounds:
            if row.weight != len(row.contributors):
                yield f"round {row.round} has weight {row.weight}, and {len(row.contributors)} contributors"
            for agent, of in row.contributors.items():
                before = counted.setdefault((agent, of), row.round)
                if before != row.round:
                    yield f"the gradient of {agent} for round {of} counts in rounds {before} and {row.round}"
                if of > row.round:
                    yield f"a gradient of round {of} counts in round {row.round}"

    def masked_twice(self) -> Iterator[str]:
        """Rounds for which a process has masked two vectors, or one in two epochs."""
        for (agent, _, number), messages in self.masked.items():
            if len(messages) > 1:
                yield f"a process of {agent} has masked {len(messages)} vectors for round {number}"

    def not_what_was_sent(self, path: Path, spec: RunSpecification) -> Iterator[str]:
        """Rounds whose basis is not, bit for bit, what the stored contributors' own gradients give.

        It takes every agent to be a witness. An agent that was started again may have learnt a round twice: then
        one of the combinations has to give the basis.
        """
        final = self._final_bases(path)
        basis, memory = spec.initial_basis(), None
        covariance = initial_head_covariance(spec.method, spec.rank)
        for row in stored_rounds(path):
            if spec.secure_sums and not row.contributors:  # it was void
                if basis_digest(basis) != row.basis_sha256:
                    yield f"round {row.round} was void, and has changed the basis"
                continue
            moves = (
                _move(ComputeBasis(row.round, basis, gradients, memory, covariance), spec)
                for gradients in self._combinations(row, spec)
            )
            # Most bases are not kept, but what they were is: by their digests.
            found = next((move for move in moves if basis_digest(move.basis) == row.basis_sha256), None)
            if found is None:
                yield f"round {row.round}: {sorted(row.contributors)} have not sent what gives its basis"
                return
            if final.get(row.round + 1, found.basis.tobytes()) != found.basis.tobytes():
                yield f"round {row.round}: the basis that was told as durable is not the one that was stored"
                return
            basis, memory, covariance = found.basis, found.step_memory, found.head_covariance

    def _combinations(
        self, row: StoredRound, spec: RunSpecification
    ) -> Iterator[tuple[Contribution | MaskedVector, ...]]:
        own = [
            [_contribution(message, spec) for message in self.sent[agent, of]]
            for agent, of in sorted(row.contributors.items())
        ]
        return itertools.islice(itertools.product(*own), _MOST_COMBINATIONS)

    def _final_bases(self, path: Path) -> dict[int, bytes]:
        """Round t → B_t, as far as it was told as durable or is kept."""
        final = {number: next(iter(bases)) for number, bases in self.committed().items() if bases}
        return final | stored_bases(path, read_state(path))


def _move(command: ComputeBasis, spec: RunSpecification) -> BasisMove:
    """What the coordinator makes of these gradients."""
    computed = computed_basis(command, spec)
    assert isinstance(computed, BasisComputed)
    return computed.move


def _contribution(message: bytes, spec: RunSpecification) -> Contribution | MaskedVector:
    upload = decode_agent_message(pb.CollaborateRequest.FromString(message), spec)
    assert isinstance(upload, GradientUpload)
    return upload.contribution


def longest_stall(path: Path) -> tuple[float, int]:
    """The longest time between two rounds in a row, in seconds, and the round that took it."""
    rounds = stored_rounds(path)
    pairs = [(after.stored - before.stored, after.round) for before, after in itertools.pairwise(rounds)]
    return max(pairs, default=(0.0, 0))


def digest_of(path: Path) -> str:
    """`basis_sha256` of the newest basis in a store."""
    return basis_digest(read_basis(path).basis)
